//! Conformance suites, fault wrappers, a manual clock and the crash simulator.
