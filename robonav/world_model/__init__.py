"""The world model: encoders, categorical latents, memory, heads and losses."""
