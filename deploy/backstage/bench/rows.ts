/** A measured value with its budget. */
export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly budget: number;
  readonly ok: boolean;
}

export function row(name: string, value: number, unit: string, budget: number): Row {
  return { name, value: Math.round(value * 1000) / 1000, unit, budget, ok: value <= budget };
}

export function percentile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}
