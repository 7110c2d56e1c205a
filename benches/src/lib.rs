//! Benches of several crates together: see `benches/` and `src/bin/`. They share no code.
