package main

import (
	"context"
	"crypto/rand"
	webtls "crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/observedaddrs"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

// The smallest RSA key that every implementation accepts by default.
const rsaBits = 2048

var (
	defaultListen = map[string]string{
		"tcp":     "/ip4/127.0.0.1/tcp/0",
		"ws":      "/ip4/127.0.0.1/tcp/0/ws",
		"wss":     "/ip4/127.0.0.1/tcp/0/tls/ws",
		"quic-v1": "/ip4/127.0.0.1/udp/0/quic-v1",
	}
	securities = map[string]libp2p.Option{
		"noise":     libp2p.Security(noise.ID, noise.New),
		"tls":       libp2p.Security(tls.ID, tls.New),
		"plaintext": libp2p.NoSecurity,
	}
	muxers = map[string]libp2p.Option{
		"yamux": libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
	}
	relayOptions = map[string]libp2p.Option{
		"none":   libp2p.DisableRelay(),
		"server": libp2p.DisableRelay(),
		"client": libp2p.EnableRelay(),
		"punch":  libp2p.ChainOptions(libp2p.EnableRelay(), libp2p.EnableHolePunching()),
	}
	addrsFactories = map[string]func([]ma.Multiaddr) []ma.Multiaddr{
		"none":   ownAddrs,
		"server": withPublicName,
		"client": ownAddrs,
		"punch":  ownAddrs,
	}
	keyTypes = map[string]int{
		"ed25519":   crypto.Ed25519,
		"secp256k1": crypto.Secp256k1,
		"ecdsa":     crypto.ECDSA,
		"rsa":       crypto.RSA,
	}
)

// node is the libp2p host with everything the commands need to remember.
type node struct {
	host       host.Host
	opts       options
	version    string
	out        *lineWriter
	identified *identifyLog
	topics     *topics        // nil with --pubsub none
	dht        *kad.IpfsDHT   // nil with --dht none
	autonat    askAutonat     // nil with --autonat none
	running    sync.WaitGroup // commands not yet answered

	meshMu sync.Mutex
	mesh   *mesh // made when first wanted

	sinkGate *gate
	pushed   atomic.Pointer[atomic.Int64] // of the running or last push
	sunk     atomic.Pointer[atomic.Int64] // of the running or last sink handler

	watchMu sync.Mutex
	watch   []string
}

func ownAddrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	return addrs
}

// withPublicName adds a name to the addresses, last: a relay of the package tells those who reserve nothing but public
// addresses, and some (rust) refuse a reservation without any. Nobody has to reach it there.
func withPublicName(addrs []ma.Multiaddr) []ma.Multiaddr {
	return append(slices.Clone(addrs), ma.StringCast("/dns4/relay.example.com/tcp/4001"))
}

func newNode(ctx context.Context, opts options, version string, out *lineWriter) (*node, error) {
	key, _, err := crypto.GenerateKeyPairWithReader(keyTypes[opts.keyType], rsaBits, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	transport, err := transportOption(opts)
	if err != nil {
		return nil, err
	}
	if opts.relay == "punch" {
		// There is nobody but the relay to say where this host is seen.
		observedaddrs.ActivationThresh = 1
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.PrivateNetwork(opts.psk),
		// Not empty, as the default is, so that a suite sees identify carry it.
		libp2p.ProtocolVersion("ipfs/0.1.0"),
		libp2p.UserAgent(strings.ReplaceAll(version, " ", "/")),
		transport,
		securities[opts.security],
		muxers[opts.muxer],
		// Listening starts last, when every handler is in place.
		libp2p.NoListenAddrs,
		// The suites test protocols, not how go-libp2p rations its resources.
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		relayOptions[opts.relay],
		libp2p.AddrsFactory(addrsFactories[opts.relay]),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}

	n := &node{
		host:       h,
		opts:       opts,
		version:    version,
		out:        out,
		identified: newIdentifyLog(),
		sinkGate:   newGate(),
		watch:      []string{},
	}
	n.pushed.Store(new(atomic.Int64))
	n.sunk.Store(new(atomic.Int64))
	if opts.relay == "server" {
		// By itself, as the option for it waits until the host knows that it can be reached from elsewhere.
		if _, err := relay.New(h); err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		}
	}
	if err := n.identified.follow(h); err != nil {
		return nil, err
	}
	n.reportConnections()
	n.serveStreams()
	if opts.pubsub != "none" {
		if n.topics, err = newTopics(ctx, h, opts, out); err != nil {
			return nil, fmt.Errorf("%s: %w", opts.pubsub, err)
		}
	}
	if opts.dht != "none" {
		if n.dht, err = newDHT(h, opts); err != nil {
			return nil, fmt.Errorf("dht: %w", err)
		}
	}
	if opts.autonat != "none" {
		if n.autonat, err = serveAutonat(h, opts); err != nil {
			return nil, fmt.Errorf("autonat: %w", err)
		}
	}
	// One at a time, as Listen with several is content when one succeeds.
	for _, addr := range opts.listen {
		if err := h.Network().Listen(addr); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	if opts.mdns != "off" { // the package speaks both versions of IP
		// It ends with the process.
		if err := mdns.NewMdnsService(h, mdns.ServiceName, &discoveries{out}).Start(); err != nil {
			return nil, fmt.Errorf("mdns: %w", err)
		}
	}
	return n, nil
}

func transportOption(opts options) (libp2p.Option, error) {
	switch opts.transport {
	case "ws":
		return libp2p.Transport(ws.New), nil
	case "wss":
		server, client, err := webTLS(opts.certificate, opts.authority)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		return libp2p.Transport(ws.New, ws.WithTLSConfig(server), ws.WithTLSClientConfig(client)), nil
	case "quic-v1":
		return libp2p.Transport(quic.NewTransport), nil
	default:
		return libp2p.Transport(tcp.NewTCPTransport), nil
	}
}

// webTLS reads the certificates of the web: ours, and that of whom to trust, without which any will do.
func webTLS(certificate, authority string) (server, client *webtls.Config, err error) {
	server, client = &webtls.Config{}, &webtls.Config{InsecureSkipVerify: authority == ""}
	if certificate != "" {
		pair, err := webtls.LoadX509KeyPair(certificate, certificate)
		if err != nil {
			return nil, nil, err
		}
		server.Certificates = []webtls.Certificate{pair}
	}
	if authority != "" {
		trusted, err := os.ReadFile(authority)
		if err != nil {
			return nil, nil, err
		}
		client.RootCAs = x509.NewCertPool()
		if !client.RootCAs.AppendCertsFromPEM(trusted) {
			return nil, nil, errors.New("no certificate in " + authority)
		}
	}
	return server, client, nil
}

// reportConnections uses the notifications per connection. The event bus would
// report per peer, but it merges a disconnect and a quick redial into nothing.
func (n *node) reportConnections() {
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			n.identified.connected(c)
			n.reportConnection("connected", c)
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			n.identified.disconnected(c)
			n.reportConnection("disconnected", c)
		},
	})
}

func (n *node) reportConnection(event string, c network.Conn) {
	if !n.opts.quiet {
		n.out.write(map[string]any{"event": event, "peer": c.RemotePeer().String()})
	}
}

// dialAddrs are the listening addresses, complete with the peer id.
func (n *node) dialAddrs() []string {
	addrs := addrStrings(n.host.Addrs())
	for i := range addrs {
		addrs[i] += "/p2p/" + n.host.ID().String()
	}
	return addrs
}

// addrStrings never returns nil, so that JSON shows [] and not null.
func addrStrings(addrs []ma.Multiaddr) []string {
	texts := make([]string, 0, len(addrs))
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return texts
}
