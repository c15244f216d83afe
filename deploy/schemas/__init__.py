"""The log's schemas: Foxglove's for what viewers draw (`views`), our own, a struct each, for the rest (`structs`)."""
