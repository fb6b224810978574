package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	identifyTimeout = 10 * time.Second
	pingTimeout     = 10 * time.Second
)

// request holds the arguments of every command; each one uses a few of them.
type request struct {
	ID  json.RawMessage `json:"id"`
	Cmd string          `json:"cmd"`

	Addr     string      `json:"addr"`
	Peer     peerID      `json:"peer"`
	Count    int         `json:"count"`
	Protocol protocol.ID `json:"protocol"`
	Size     int64       `json:"size"`
	Seed     int64       `json:"seed"`
	Total    int         `json:"total"`
	Parallel int         `json:"parallel"`
	Topic    string      `json:"topic"`
	Upload   int64       `json:"upload"`
	Download int64       `json:"download"`
	Chunk    int64       `json:"chunk"`
	Identify bool        `json:"identify"`
	Partial  bool        `json:"partial"`
	Group    []byte      `json:"group"`
	Nodes    int         `json:"nodes"`
	Dials    int         `json:"dials"`
	Rate     float64     `json:"rate"`
	Patience float64     `json:"patience"`
	Data     []byte      `json:"data"` // encoding/json turns base64 into bytes
	Key      []byte      `json:"key"`
}

// peerID decodes at once, so that a bad id fails before a command begins.
type peerID struct{ peer.ID }

func (p *peerID) UnmarshalText(text []byte) error {
	id, err := peer.Decode(string(text))
	p.ID = id
	return err
}

type results = map[string]any

func (n *node) execute(ctx context.Context, req *request) (results, error) {
	switch req.Cmd {
	case "dial":
		return n.dial(ctx, req.Addr)
	case "reserve":
		return n.reserve(ctx, req.Addr)
	case "ping":
		return n.ping(ctx, req.Peer.ID, req.Count)
	case "identify":
		return n.identify(ctx, req.Peer.ID)
	case "known_protocols":
		return n.knownProtocols(req.Peer.ID)
	case "add_protocol":
		n.host.SetStreamHandler(req.Protocol, func(s network.Stream) { s.Close() })
		return nil, nil
	case "echo":
		return n.echo(ctx, req.Peer.ID, req.Seed, req.Size)
	case "streams":
		return n.streams(ctx, req.Peer.ID, req.Total, req.Parallel)
	case "half_close":
		return n.halfClose(ctx, req.Peer.ID, req.Seed, req.Size)
	case "expect_reset":
		return n.expectReset(ctx, req.Peer.ID)
	case "send_reset":
		return nil, n.sendReset(ctx, req.Peer.ID)
	case "push":
		return n.push(ctx, req.Peer.ID, req.Seed, req.Size)
	case "perf":
		return n.perf(ctx, req)
	case "connect_many":
		return n.connectMany(ctx, req)
	case "status":
		return n.status(), nil
	case "sink_hold":
		n.sinkGate.hold()
		return nil, nil
	case "sink_release":
		n.sinkGate.release()
		return nil, nil
	case "connections":
		return n.connections(), nil
	case "disconnect":
		return nil, n.host.Network().ClosePeer(req.Peer.ID)
	case "subscribe", "unsubscribe", "publish", "publish_partial", "topic_peers":
		return n.executePubSub(ctx, req)
	case "dht_table", "dht_find_peer", "dht_closest", "dht_put", "dht_get", "dht_provide", "dht_find_providers",
		"dht_put_pk", "dht_put_ipns":
		return n.executeDHT(ctx, req)
	case "autonat":
		return n.executeAutonat(ctx, req.Peer.ID)
	case "publish_many", "collect", "mesh":
		return n.gossip(ctx, req)
	default:
		return nil, fmt.Errorf("unknown command %q", req.Cmd)
	}
}

// reserve asks the relay at addr, which the host then accepts circuits from.
func (n *node) reserve(ctx context.Context, addr string) (results, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	if err := n.host.Connect(ctx, *info); err != nil {
		return nil, err
	}
	reservation, err := client.Reserve(ctx, n.host, *info)
	if err != nil {
		return nil, err
	}
	return results{"expires": reservation.Expiration.Unix(), "voucher": reservation.Voucher != nil}, nil
}

func (n *node) executePubSub(ctx context.Context, req *request) (results, error) {
	if n.topics == nil {
		return nil, errors.New("started with --pubsub none")
	}
	switch req.Cmd {
	case "subscribe":
		return nil, n.topics.subscribe(ctx, req.Topic, req.Partial)
	case "unsubscribe":
		return nil, n.topics.unsubscribe(req.Topic)
	case "publish":
		return nil, n.topics.publish(ctx, req.Topic, req.Data)
	case "publish_partial":
		return nil, n.topics.publishPartial(req.Topic, req.Group, req.Data)
	default:
		return results{"peers": n.topics.peers(req.Topic)}, nil
	}
}

func (n *node) dial(ctx context.Context, addr string) (results, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	// The command means this address and now: neither what is known from
	// earlier connections nor the pause after a failed dial may interfere.
	n.host.Peerstore().ClearAddrs(info.ID)
	// Not for the temporary time: an identify that is late drops addresses of that kind.
	n.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.AddressTTL)
	if s, ok := n.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	// Host.Connect would also wait for identify, which is not part of dialling.
	if _, err := n.host.Network().DialPeer(ctx, info.ID); err != nil {
		return nil, err
	}
	return results{"peer_id": info.ID.String()}, nil
}

func (n *node) ping(ctx context.Context, id peer.ID, count int) (results, error) {
	ctx, cancel := context.WithCancel(network.WithNoDial(ctx, "only existing connections"))
	defer cancel()
	rtts := make([]float64, 0, count)
	answers := ping.Ping(ctx, n.host, id)
	for len(rtts) < count {
		select {
		case answer := <-answers:
			if answer.Error != nil {
				return nil, answer.Error
			}
			rtts = append(rtts, milliseconds(answer.RTT))
		case <-time.After(pingTimeout):
			return nil, fmt.Errorf("no answer to ping %d", len(rtts)+1)
		}
	}
	return results{"rtts_ms": rtts}, nil
}

func (n *node) identify(ctx context.Context, id peer.ID) (results, error) {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	told, err := n.identified.wait(ctx, n.host.Network(), id)
	if err != nil {
		return nil, err
	}
	var observed any
	if told.ObservedAddr != nil {
		observed = told.ObservedAddr.String()
	}
	return results{
		"agent":            told.AgentVersion,
		"protocol_version": told.ProtocolVersion,
		"protocols":        protocol.ConvertToStrings(told.Protocols),
		"listen_addrs":     addrStrings(told.ListenAddrs),
		"observed_addr":    observed,
	}, nil
}

func (n *node) knownProtocols(id peer.ID) (results, error) {
	protocols, err := n.host.Peerstore().GetProtocols(id)
	if err != nil {
		return nil, err
	}
	return results{"protocols": protocol.ConvertToStrings(protocols)}, nil
}

func (n *node) connections() results {
	peers := []string{}
	for _, c := range n.host.Network().Conns() {
		peers = append(peers, c.RemotePeer().String())
	}
	return results{"peers": peers}
}
