#!/bin/sh
# Sets the routes of the hole-punch suite, which differ between the relay and those behind NATs, and runs the program.
set -eu

if [ -n "${WAN_ROUTER_IP:-}" ]; then
    ip route add "$WAN_SUBNET" via "$WAN_ROUTER_IP" dev lan0
else
    ip route add "$DIALER_LAN_SUBNET" via "$DIALER_ROUTER_IP" dev wan0
    ip route add "$LISTENER_LAN_SUBNET" via "$LISTENER_ROUTER_IP" dev wan0
fi
exec python -m interop.harness.holepunch
