package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// dhtPrefix is that of a network of our own: the public one takes no addresses
// of this machine and no namespaces but its own two.
const (
	dhtPrefix      = "/interop"
	dhtProtocol    = "/interop/kad/1.0.0"
	providerTTL    = 48 * 60 * 60 // seconds
	dhtTimeout     = 60 * time.Second
	ipnsLifetime   = time.Hour
	ipnsCacheTime  = time.Minute
	dhtTestRecords = "test"
)

var dhtModes = map[string]dht.ModeOpt{"server": dht.ModeServer, "client": dht.ModeClient}

// anyRecord takes every value of a namespace and prefers the longest.
type anyRecord struct{}

func (anyRecord) Validate(string, []byte) error { return nil }

func (anyRecord) Select(_ string, values [][]byte) (int, error) {
	best := 0
	for i, value := range values {
		if len(value) > len(values[best]) {
			best = i
		}
	}
	return best, nil
}

func newDHT(h host.Host, opts options) (*dht.IpfsDHT, error) {
	validators := record.NamespacedValidator{
		"pk":           record.PublicKeyValidator{},
		"ipns":         ipns.Validator{KeyBook: h.Peerstore()},
		dhtTestRecords: anyRecord{},
		"example":      anyRecord{},
	}
	return dht.New(h,
		dht.Mode(dhtModes[opts.dht]),
		dht.ProtocolPrefix(dhtPrefix),
		dht.V1ProtocolOverride(protocol.ID(opts.dhtProtocol)),
		dht.Validator(validators),
		dht.ProviderManagerOpts(records.ProvideValidity(time.Duration(opts.providerTTL)*time.Second)),
	)
}

func (n *node) executeDHT(ctx context.Context, req *request) (results, error) {
	if n.dht == nil {
		return nil, errors.New("started with --dht none")
	}
	// Lookups in a small network may need peers that only identify has told of.
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "interop"), dhtTimeout)
	defer cancel()
	switch req.Cmd {
	case "dht_table":
		peers := []string{}
		for _, peer := range n.dht.RoutingTable().ListPeers() {
			peers = append(peers, peer.String())
		}
		return results{"peers": peers}, nil
	case "dht_find_peer":
		// What the peerstore holds anyway would answer for the network.
		info, err := n.dht.FindPeer(ctx, req.Peer.ID)
		return results{"addrs": addrStrings(info.Addrs)}, err
	case "dht_closest":
		found, err := n.dht.GetClosestPeers(ctx, string(req.Key))
		peers := []string{}
		for _, peer := range found {
			peers = append(peers, peer.String())
		}
		return results{"peers": peers}, err
	case "dht_put":
		return nil, n.dht.PutValue(ctx, string(req.Key), req.Data)
	case "dht_get":
		value, err := n.dht.GetValue(ctx, string(req.Key))
		return results{"data": value}, err
	case "dht_provide":
		return nil, n.dht.Provide(ctx, contentOf(req.Key), true)
	case "dht_find_providers":
		peers := []string{}
		for info := range n.dht.FindProvidersAsync(ctx, contentOf(req.Key), req.Count) {
			peers = append(peers, info.ID.String())
		}
		return results{"peers": peers}, nil
	case "dht_put_pk":
		key := "/pk/" + string(n.host.ID())
		value, err := crypto.MarshalPublicKey(n.host.Peerstore().PubKey(n.host.ID()))
		if err != nil {
			return nil, err
		}
		return results{"key": []byte(key)}, n.dht.PutValue(ctx, key, value)
	case "dht_put_ipns":
		return n.putIPNS(ctx, string(req.Data), uint64(req.Count))
	default:
		return nil, fmt.Errorf("unknown command %q", req.Cmd)
	}
}

// contentOf takes a key for the multihash that a content id is made of.
func contentOf(key []byte) cid.Cid {
	return cid.NewCidV1(cid.Raw, multihash.Multihash(key))
}

func (n *node) putIPNS(ctx context.Context, value string, sequence uint64) (results, error) {
	target, err := path.NewPath(value)
	if err != nil {
		return nil, err
	}
	secret := n.host.Peerstore().PrivKey(n.host.ID())
	made, err := ipns.NewRecord(secret, target, sequence, time.Now().Add(ipnsLifetime), ipnsCacheTime)
	if err != nil {
		return nil, err
	}
	data, err := ipns.MarshalRecord(made)
	if err != nil {
		return nil, err
	}
	key := "/ipns/" + string(n.host.ID())
	return results{"key": []byte(key), "data": data}, n.dht.PutValue(ctx, key, data)
}
