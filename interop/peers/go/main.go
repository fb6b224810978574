// Command go-peer is the go-libp2p side of the interop suites: it reads JSON
// commands from standard input and writes JSON lines to standard output.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/pnet"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

// closeTimeout bounds the graceful close, so that a peer that no longer
// answers cannot keep this process alive after the suite has let go of it.
const closeTimeout = 5 * time.Second

var errUsage = errors.New("wrong flag value")

// features is what --features prints; its lists are also what flags are
// checked against, so the two cannot disagree.
type features struct {
	Name        string            `json:"name"`
	Version     string            `json:"version"`
	Transports  []string          `json:"transports"`
	Securities  []string          `json:"securities"`
	Muxers      []string          `json:"muxers"`
	KeyTypes    []string          `json:"key_types"`
	PubSub      []string          `json:"pubsub"`
	DHT         []string          `json:"dht"`
	Namespaces  []string          `json:"dht_namespaces"`
	PSK         bool              `json:"psk"`
	Signatures  []string          `json:"signatures"`
	MessageIDs  []string          `json:"message_ids"`
	Relay       []string          `json:"relay"`
	MDNS        []string          `json:"mdns"`
	AutoNAT     []string          `json:"autonat"`
	Extensions  []string          `json:"extensions"`
	Unsupported map[string]string `json:"unsupported"`
}

func supported() features {
	return features{
		Name:        "go",
		Version:     packageVersion(),
		Transports:  []string{"tcp", "ws", "wss", "quic-v1"},
		Securities:  []string{"noise", "tls", "plaintext"},
		Muxers:      []string{"yamux"},
		KeyTypes:    []string{"ed25519", "secp256k1", "ecdsa", "rsa"},
		PubSub:      []string{"floodsub", "gossipsub", "randomsub", "none"},
		DHT:         []string{"server", "client", "none"},
		Namespaces:  []string{"pk", "ipns", "test", "example"},
		PSK:         true,
		Signatures:  []string{"strict", "none"},
		MessageIDs:  []string{"default", "first8"},
		Relay:       []string{"client", "server", "none", "punch"},
		MDNS:        []string{"on", "ipv6"},
		AutoNAT:     []string{"v1", "v2"},
		Extensions:  []string{"partial", "test"},
		Unsupported: map[string]string{"mplex": "removed from go-libp2p"},
	}
}

// packageVersion comes from the build itself, so it always names the
// go-libp2p that was really linked.
func packageVersion() string {
	const module = "github.com/libp2p/go-libp2p"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				return "go-libp2p " + dep.Version
			}
		}
	}
	return "go-libp2p unknown"
}

type options struct {
	transport string
	security  string
	muxer     string
	keyType   string
	pubsub    string
	relay     string
	dht       string
	// Of the DHT: its protocol id, and how long providers are kept.
	dhtProtocol string
	providerTTL int // seconds
	// Of pubsub: whether messages are signed, what tells them apart, and
	// whether other peers are proposed to those that are pruned.
	signatures string
	messageID  string
	exchange   bool
	listen     []ma.Multiaddr
	psk        pnet.PSK // nil in the public network
	features   bool
	quiet      bool
	mdns       string
	autonat    string
	// Of the web, for wss: key and certificate to listen with, and whom to trust.
	certificate string
	authority   string
}

// parseFlags exits by itself, with code 2, when a flag is unknown.
func parseFlags(known features) (options, error) {
	var opts options
	var listen []string
	flag.StringVar(&opts.transport, "transport", "tcp", "the one transport to use")
	flag.StringVar(&opts.security, "security", "noise", "security protocol; quic-v1 brings its own")
	flag.StringVar(&opts.muxer, "muxer", "yamux", "stream multiplexer; quic-v1 brings its own")
	flag.StringVar(&opts.keyType, "key-type", "ed25519", "type of the identity key made at start")
	flag.StringVar(&opts.pubsub, "pubsub", "floodsub", "publish/subscribe router")
	flag.StringVar(&opts.signatures, "signatures", "strict", "signature policy of pubsub")
	flag.StringVar(&opts.messageID, "message-id", "default", "what tells messages of pubsub apart")
	flag.BoolVar(&opts.exchange, "exchange", false, "propose other peers to those that are pruned")
	flag.StringVar(&opts.relay, "relay", "none", "use relays, or be one")
	flag.StringVar(&opts.dht, "dht", "none", "role in the Kademlia DHT")
	flag.StringVar(&opts.dhtProtocol, "dht-protocol", dhtProtocol, "protocol id of the DHT")
	flag.IntVar(&opts.providerTTL, "provider-ttl", providerTTL, "seconds for which providers are kept")
	flag.Func("psk", "hexadecimal key of a private network", func(text string) (err error) {
		opts.psk, err = hex.DecodeString(text)
		return err
	})
	flag.StringVar(&opts.mdns, "mdns", "off", "find peers of the local network")
	flag.StringVar(&opts.autonat, "autonat", "none", "version of AutoNAT to serve and to ask with")
	flag.StringVar(&opts.certificate, "certificate", "", "PEM file with key and certificate to listen with, for wss")
	flag.StringVar(&opts.authority, "authority", "", "PEM file with the certificate of whom to trust, for wss")
	flag.BoolVar(&opts.quiet, "quiet", false, "print no events after ready")
	flag.BoolVar(&opts.features, "features", false, "print what this peer can do and exit")
	flag.Func("listen", "multiaddr to listen on, may repeat; none listens nowhere", func(addr string) error {
		listen = append(listen, addr)
		return nil
	})
	flag.Parse()

	if flag.NArg() > 0 {
		return opts, fmt.Errorf("%w: unexpected argument %q", errUsage, flag.Arg(0))
	}
	for _, check := range []struct {
		flag, value string
		allowed     []string
	}{
		{"transport", opts.transport, known.Transports},
		{"security", opts.security, known.Securities},
		{"muxer", opts.muxer, known.Muxers},
		{"key-type", opts.keyType, known.KeyTypes},
		{"pubsub", opts.pubsub, known.PubSub},
		{"signatures", opts.signatures, known.Signatures},
		{"message-id", opts.messageID, known.MessageIDs},
		{"relay", opts.relay, known.Relay},
		{"mdns", opts.mdns, append(known.MDNS, "off")},
		{"dht", opts.dht, known.DHT},
		{"autonat", opts.autonat, append(known.AutoNAT, "none")},
	} {
		if reason, ok := known.Unsupported[check.value]; ok {
			return opts, fmt.Errorf("%w: --%s %s: %s", errUsage, check.flag, check.value, reason)
		}
		if !slices.Contains(check.allowed, check.value) {
			return opts, fmt.Errorf("%w: --%s %q is not one of %s",
				errUsage, check.flag, check.value, strings.Join(check.allowed, ", "))
		}
	}

	var err error
	opts.listen, err = listenAddrs(opts.transport, listen)
	return opts, err
}

func listenAddrs(transport string, listen []string) ([]ma.Multiaddr, error) {
	if slices.Contains(listen, "none") {
		if len(listen) > 1 {
			return nil, fmt.Errorf("%w: --listen none stands alone", errUsage)
		}
		return nil, nil
	}
	if len(listen) == 0 {
		listen = []string{defaultListen[transport]}
	}
	addrs := make([]ma.Multiaddr, 0, len(listen))
	for _, text := range listen {
		addr, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("%w: --listen %s: %w", errUsage, text, err)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// lineWriter writes whole JSON lines from many goroutines.
type lineWriter struct {
	mu      sync.Mutex
	encoder *json.Encoder
}

func newLineWriter(w io.Writer) *lineWriter {
	return &lineWriter{encoder: json.NewEncoder(w)}
}

func (w *lineWriter) write(line map[string]any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.encoder.Encode(line); err != nil {
		// Without standard output there is nobody left to work for.
		log.Fatalf("standard output: %v", err)
	}
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "go-peer: %v\n", err)
		if errors.Is(err, errUsage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailure)
	}
}

func run() error {
	known := supported()
	opts, err := parseFlags(known)
	if err != nil {
		return err
	}
	out := newLineWriter(os.Stdout)
	if opts.features {
		return json.NewEncoder(os.Stdout).Encode(known)
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, err := newNode(ctx, opts, known.Version, out)
	if err != nil {
		return err
	}
	out.write(map[string]any{
		"event":   "ready",
		"peer_id": n.host.ID().String(),
		"addrs":   n.dialAddrs(),
		"version": known.Version,
	})

	readErr := n.serve(ctx, os.Stdin)
	return errors.Join(readErr, n.close(cancel))
}

// serve answers commands until a shutdown command or the end of the input.
func (n *node) serve(ctx context.Context, in io.Reader) error {
	// A Reader and not a Scanner: a publish line has no useful upper bound.
	reader := bufio.NewReader(in)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		var req request
		if err := json.Unmarshal(line, &req); err != nil {
			n.answer(req.ID, nil, fmt.Errorf("not a command: %w", err))
			continue
		}
		if req.Cmd == "shutdown" {
			n.answer(req.ID, nil, nil)
			return nil
		}
		n.running.Go(func() {
			results, err := n.execute(ctx, &req)
			n.answer(req.ID, results, err)
		})
	}
}

func (n *node) answer(id json.RawMessage, results map[string]any, err error) {
	line := map[string]any{"id": id, "ok": err == nil}
	for key, value := range results {
		line[key] = value
	}
	if err != nil {
		line["error"] = err.Error()
	}
	n.out.write(line)
}

// close closes the host, which also ends the commands that still run, and
// lets them give their answers.
func (n *node) close(cancel context.CancelFunc) error {
	closed := make(chan error, 1)
	go func() {
		err := n.host.Close()
		cancel()
		n.running.Wait()
		closed <- err
	}()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeTimeout):
		return errors.New("the host did not close in time")
	}
}
