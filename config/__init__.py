"""Settings, logging and the embedded servers: the only reader of the environment."""
