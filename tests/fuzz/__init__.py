"""Fuzzing: bytes of a peer lead to a result or to an error of this library's tree, in time and in bounds.

``python -m tests.fuzz NAME --seconds N`` runs one target under coverage guidance, with atheris (``pip install
atheris``); ``test_targets.py`` replays the seeds, and what hypothesis makes of them, with every test run.
"""
