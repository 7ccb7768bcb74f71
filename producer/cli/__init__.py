"""The commands of the control plane: what they are told, and what they say."""
