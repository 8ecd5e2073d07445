//! Keeper, descriptor passing, memory files, TCP_REPAIR: all unsafe descriptor code.
