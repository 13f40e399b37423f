"""The `moorage` command. `main` holds the map of commands; each module is loaded only when one of its commands runs."""
