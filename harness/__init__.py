"""The props that tests, benchmarks, chaos and the demo share: stage, people, sinks and load."""
