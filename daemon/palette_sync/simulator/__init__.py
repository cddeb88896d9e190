"""A simulated world for development, demonstration, tests and benchmarks: Palette instances and Kubernetes API servers.

Real servers, on loopback unless told otherwise, all in one process:
`async with Simulator(SimulatorOptions(clusters=60)) as sim: ...`.
"""

from palette_sync.simulator.faults import Fault
from palette_sync.simulator.server import Simulator, SimulatorOptions

__all__ = ["Fault", "Simulator", "SimulatorOptions"]
