"""Certificates: the theory applied to members and checkpoints."""
