"""How a route chooses: by weights, by rules, by the entity."""
