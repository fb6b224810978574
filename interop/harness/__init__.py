"""Test programs for libp2p's own test suites: ``transport``, ``perf``, ``hole-punch`` and ``kad-dht`` of
libp2p/unified-testing, and the transport interop of libp2p/test-plans.

Each program plays all roles and is told by its environment what to do; see :mod:`.contract`. Results go to standard
output, everything else to standard error. ``Dockerfile.*`` make the images those suites want, and
``interop/test_harness.py``, ``interop/test_harness_holepunch.py`` and ``interop/test_kad_suite.py`` play the suites on
this machine, without containers.
"""
