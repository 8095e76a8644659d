"""Settings and logging. Only this package reads the environment."""
