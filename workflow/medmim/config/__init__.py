"""The typed configuration: every setting, one module a section."""
