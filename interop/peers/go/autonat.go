package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
)

// autonatTimeout is as long as a server of version 1 takes to say that it reached nobody, and a bit more.
const autonatTimeout = 20 * time.Second

// askAutonat asks a peer whether this host can be reached.
type askAutonat func(ctx context.Context, p peer.ID) (results, error)

// serveAutonat serves AutoNAT in one of its versions, and returns what asks others in the same. The dialer has an
// identity and connections of its own.
func serveAutonat(h host.Host, opts options) (askAutonat, error) {
	transport, err := transportOption(opts)
	if err != nil {
		return nil, err
	}
	dialer, err := libp2p.New(
		transport,
		securities[opts.security],
		muxers[opts.muxer],
		libp2p.NoListenAddrs,
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, fmt.Errorf("dialer: %w", err)
	}
	if opts.autonat == "v1" {
		if _, err := autonat.New(h, autonat.EnableService(dialer.Network())); err != nil {
			return nil, err
		}
		client := autonat.NewAutoNATClient(h, nil, nil)
		return func(ctx context.Context, p peer.ID) (results, error) {
			err := client.DialBack(ctx, p)
			if err != nil && !autonat.IsDialError(err) {
				return nil, err
			}
			return results{"reachable": err == nil}, nil
		}, nil
	}
	v2, err := autonatv2.New(dialer, autonatv2.AllowPrivateAddrs)
	if err != nil {
		return nil, err
	}
	if err := v2.Start(h); err != nil {
		return nil, err
	}
	return func(ctx context.Context, p peer.ID) (results, error) {
		var requests []autonatv2.Request
		for _, addr := range h.Addrs() {
			requests = append(requests, autonatv2.Request{Addr: addr, SendDialData: true})
		}
		// It chooses whom to ask by itself, of those it has identified.
		for {
			found, err := v2.GetReachability(ctx, requests)
			if errors.Is(err, autonatv2.ErrNoPeers) && ctx.Err() == nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			if err != nil {
				return nil, err
			}
			if found.AllAddrsRefused {
				return nil, errors.New("all addresses were refused")
			}
			return results{"reachable": found.Reachability == network.ReachabilityPublic, "addr": found.Addr.String()}, nil
		}
	}, nil
}

func (n *node) executeAutonat(ctx context.Context, p peer.ID) (results, error) {
	if n.autonat == nil {
		return nil, errors.New("started with --autonat none")
	}
	ctx, cancel := context.WithTimeout(ctx, autonatTimeout)
	defer cancel()
	return n.autonat(ctx, p)
}
