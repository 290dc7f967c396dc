"""Adapts a checkpoint to one person, from footage of this person.

`personalize` is the API, `command` the command line. Footage becomes training data (`footage`); the
landmark network learns how the person speaks (`landmarks`); a held-out piece decides whether that
was for the better (`comparison`).
"""
