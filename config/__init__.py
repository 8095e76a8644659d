"""Settings, logging and the embedded servers. Only this package reads the environment."""
