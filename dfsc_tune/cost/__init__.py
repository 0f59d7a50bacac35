"""Says what a search will take: throughput, prices, simulated early stopping, the plan."""
