"""``gossipsub-interop/`` of libp2p/test-plans: our program, and a way to play its scenarios without a simulator."""
