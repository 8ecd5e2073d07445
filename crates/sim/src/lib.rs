//! Model checking and simulation over the machines of `hitless-core`.
