"""Graphs as the algebra asks for them: one adapter per framework."""
