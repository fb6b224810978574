package main

import "github.com/libp2p/go-libp2p/core/peer"

// discoveries reports the peers that mDNS finds.
type discoveries struct {
	out *lineWriter
}

func (d *discoveries) HandlePeerFound(found peer.AddrInfo) {
	for _, addr := range found.Addrs {
		d.out.write(map[string]any{"event": "discovered", "peer": found.ID.String(), "addr": addr.String()})
	}
}
