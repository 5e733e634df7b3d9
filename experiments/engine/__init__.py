"""The engine below the experiments: configuration, jobs, cache, batched measuring, tables, sweeps, tracking."""
