"""isoflop, room by room: a study, what happened, what it means, how it looks, and who runs it."""
