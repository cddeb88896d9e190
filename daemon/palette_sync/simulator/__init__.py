"""Simulated Palette instances and Kubernetes API servers, for development, the demo, tests and benchmarks.

They are real TLS servers in one process, on loopback unless `listen` says otherwise:
`async with Simulator(SimulatorOptions(clusters=60)) as sim: ...`.
"""

from palette_sync.simulator.faults import Fault
from palette_sync.simulator.server import Simulator, SimulatorOptions

__all__ = ["Fault", "Simulator", "SimulatorOptions"]
