"""Learning behaviour inside the world model: rollouts, lambda returns, actor and critic."""
