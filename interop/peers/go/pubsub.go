package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// queueSize replaces the default of 32 messages. Beyond the queue go-libp2p
// drops messages silently, and a suite that counts them would blame the wire.
const queueSize = 4096

// randomSubSize is the size of the network that randomsub takes as given.
const randomSubSize = 10

var signaturePolicies = map[string]pubsub.MessageSignaturePolicy{
	"strict": pubsub.StrictSign,
	"none":   pubsub.StrictNoSign,
}

// topics joins each topic once, as the package allows no second handle.
type topics struct {
	pubsub   *pubsub.PubSub
	partials *partials // nil with floodsub
	host     host.Host
	out      *lineWriter
	quiet    bool

	mu     sync.Mutex
	counts map[string]*count
	joined map[string]*pubsub.Topic
	subs   map[string]*pubsub.Subscription
}

func newTopics(ctx context.Context, h host.Host, opts options, out *lineWriter) (*topics, error) {
	t := &topics{
		host:   h,
		out:    out,
		quiet:  opts.quiet,
		counts: make(map[string]*count),
		joined: make(map[string]*pubsub.Topic),
		subs:   make(map[string]*pubsub.Subscription),
	}
	settings := []pubsub.Option{
		pubsub.WithMessageSignaturePolicy(signaturePolicies[opts.signatures]),
		pubsub.WithPeerOutboundQueueSize(queueSize),
		pubsub.WithValidateQueueSize(queueSize),
	}
	if opts.messageID == "first8" {
		settings = append(settings, pubsub.WithMessageIdFn(firstBytes))
	}
	if opts.signatures == "none" {
		settings = append(settings, pubsub.WithNoAuthor())
	}
	var err error
	switch opts.pubsub {
	case "gossipsub":
		t.partials = newPartials(out)
		settings = append(settings,
			pubsub.WithPeerExchange(opts.exchange),
			pubsub.WithPartialMessagesExtension(t.partials.extension),
			pubsub.WithTestExtension(pubsub.TestExtensionConfig{OnReceiveTestExtension: t.reportTestExtension}),
		)
		t.pubsub, err = pubsub.NewGossipSub(ctx, h, settings...)
		t.partials.pubsub = t.pubsub
	case "randomsub":
		t.pubsub, err = pubsub.NewRandomSub(ctx, h, randomSubSize, settings...)
	default:
		t.pubsub, err = pubsub.NewFloodSub(ctx, h, settings...)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// reportTestExtension is called for every RPC of a peer that knows the
// extension, whether or not its message is in it.
func (t *topics) reportTestExtension(from peer.ID) {
	t.out.write(map[string]any{"event": "test_extension", "peer": from.String()})
}

// firstBytes tells messages apart by their first eight bytes.
func firstBytes(m *pb.Message) string {
	return string(m.GetData()[:min(8, len(m.GetData()))])
}

// join needs the lock held.
func (t *topics) join(name string, opts ...pubsub.TopicOpt) (*pubsub.Topic, error) {
	if topic, ok := t.joined[name]; ok {
		return topic, nil
	}
	topic, err := t.pubsub.Join(name, opts...)
	if err != nil {
		return nil, err
	}
	t.joined[name] = topic
	return topic, nil
}

func (t *topics) subscribe(ctx context.Context, name string, partial bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.subs[name]; ok {
		return nil
	}
	var opts []pubsub.TopicOpt
	if partial {
		opts = append(opts, pubsub.RequestPartialMessages())
	}
	topic, err := t.join(name, opts...)
	if err != nil {
		return err
	}
	self := t.host.ID()
	sub, err := topic.Subscribe(
		pubsub.WithBufferSize(queueSize),
		// Not by author: with unsigned messages there is none.
		pubsub.WithMessageFilter(func(m *pubsub.Message) bool { return m.ReceivedFrom != self }),
	)
	if err != nil {
		return err
	}
	t.subs[name] = sub
	t.counts[name] = newCount()
	go t.report(ctx, sub, t.counts[name])
	return nil
}

// count is nil for a topic that was never subscribed to.
func (t *topics) count(name string) *count {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[name]
}

func (t *topics) report(ctx context.Context, sub *pubsub.Subscription, received *count) {
	for {
		// The only errors are a cancelled subscription and the end of it all.
		message, err := sub.Next(ctx)
		if err != nil {
			return
		}
		received.add()
		if t.quiet {
			continue
		}
		t.out.write(map[string]any{
			"event": "message",
			"topic": message.GetTopic(),
			"from":  message.GetFrom().String(),
			"data":  base64.StdEncoding.EncodeToString(message.GetData()),
		})
	}
}

func (t *topics) unsubscribe(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	sub, ok := t.subs[name]
	if !ok {
		return fmt.Errorf("not subscribed to %q", name)
	}
	delete(t.subs, name)
	sub.Cancel()
	return nil
}

func (t *topics) publish(ctx context.Context, name string, data []byte) error {
	if name == "" {
		return errors.New("topic is empty")
	}
	t.mu.Lock()
	topic, err := t.join(name)
	t.mu.Unlock()
	if err != nil {
		return err
	}
	return topic.Publish(ctx, data)
}

func (t *topics) publishPartial(name string, group, parts []byte) error {
	if t.partials == nil {
		return errors.New("only gossipsub knows messages in parts")
	}
	return t.partials.publish(name, group, parts)
}

func (t *topics) peers(name string) []string {
	peers := []string{}
	for _, id := range t.pubsub.ListPeers(name) {
		peers = append(peers, id.String())
	}
	return peers
}
