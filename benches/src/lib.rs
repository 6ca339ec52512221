//! Micro-benchmarks of the kernels; everything is under `benches/`.
