"""Audits: model organisms, so far."""
