"""The catalogue of pathways as versioned data, and what reads it."""
