package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
)

// queueSize replaces the default of 32 messages. Beyond the queue go-libp2p
// drops messages silently, and a suite that counts them would blame the wire.
const queueSize = 4096

// topics joins each topic once, as the package allows no second handle.
type topics struct {
	pubsub *pubsub.PubSub
	host   host.Host
	out    *lineWriter
	quiet  bool

	mu     sync.Mutex
	counts map[string]*count
	joined map[string]*pubsub.Topic
	subs   map[string]*pubsub.Subscription
}

func newTopics(ctx context.Context, h host.Host, router string, out *lineWriter, quiet bool) (*topics, error) {
	start := pubsub.NewFloodSub
	if router == "gossipsub" {
		start = pubsub.NewGossipSub
	}
	ps, err := start(ctx, h,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithPeerOutboundQueueSize(queueSize),
		pubsub.WithValidateQueueSize(queueSize),
	)
	if err != nil {
		return nil, err
	}
	return &topics{
		pubsub: ps,
		host:   h,
		out:    out,
		quiet:  quiet,
		counts: make(map[string]*count),
		joined: make(map[string]*pubsub.Topic),
		subs:   make(map[string]*pubsub.Subscription),
	}, nil
}

// join needs the lock held.
func (t *topics) join(name string) (*pubsub.Topic, error) {
	if topic, ok := t.joined[name]; ok {
		return topic, nil
	}
	topic, err := t.pubsub.Join(name)
	if err != nil {
		return nil, err
	}
	t.joined[name] = topic
	return topic, nil
}

func (t *topics) subscribe(ctx context.Context, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.subs[name]; ok {
		return nil
	}
	topic, err := t.join(name)
	if err != nil {
		return err
	}
	self := t.host.ID()
	sub, err := topic.Subscribe(
		pubsub.WithBufferSize(queueSize),
		pubsub.WithMessageFilter(func(m *pubsub.Message) bool { return m.GetFrom() != self }),
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

func (t *topics) peers(name string) []string {
	peers := []string{}
	for _, id := range t.pubsub.ListPeers(name) {
		peers = append(peers, id.String())
	}
	return peers
}
