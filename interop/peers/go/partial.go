package main

import (
	"encoding/base64"
	"io"
	"iter"
	"log/slog"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p-pubsub/partialmessages"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Messages of eight parts of one byte. On the wire parts are pairs of number
// and value; metadata is a byte with a bit for each part that somebody has.
type eight map[byte]byte

func (e eight) bits() (bits byte) {
	for number := range e {
		bits |= 1 << number
	}
	return bits
}

// lacking returns the parts that are not in theirs.
func (e eight) lacking(theirs byte) (data []byte) {
	for number := range byte(8) {
		if value, ok := e[number]; ok && theirs&(1<<number) == 0 {
			data = append(data, number, value)
		}
	}
	return data
}

// add returns whether anything was new.
func (e eight) add(data []byte) bool {
	before := len(e)
	for ; len(data) >= 2; data = data[2:] {
		if data[0] < 8 {
			e[data[0]] = data[1]
		}
	}
	return len(e) > before
}

// partialPeer is what a peer told of a message, and was told.
type partialPeer struct {
	theirs, told []byte
}

// partials holds this peer's messages in parts.
type partials struct {
	extension *partialmessages.PartialMessagesExtension[partialPeer]
	out       *lineWriter
	pubsub    *pubsub.PubSub // set before anything arrives

	mu       sync.Mutex
	messages map[[2]string]eight
}

func newPartials(out *lineWriter) *partials {
	p := &partials{out: out, messages: make(map[[2]string]eight)}
	p.extension = &partialmessages.PartialMessagesExtension[partialPeer]{
		Logger:             slog.New(slog.NewTextHandler(io.Discard, nil)),
		GroupTTLByHeatbeat: 60,
		OnEmitGossip: func(topic string, group []byte, _ []peer.ID, _ map[peer.ID]partialPeer) {
			go p.publish(topic, group, nil)
		},
		OnIncomingRPC: p.receive,
	}
	return p
}

// receive runs in the loop of pubsub, which publishing has to wait for.
func (p *partials) receive(from peer.ID, peers map[peer.ID]partialPeer, rpc *pb.PartialMessagesExtension) error {
	known := peers[from]
	if len(rpc.PartsMetadata) == 1 {
		known.theirs = rpc.PartsMetadata
	}
	peers[from] = known
	go p.publish(rpc.GetTopicID(), rpc.GroupID, rpc.PartialMessage)
	return nil
}

// publish adds parts to a message and tells the others.
func (p *partials) publish(topic string, group, parts []byte) error {
	p.mu.Lock()
	key := [2]string{topic, string(group)}
	message, ok := p.messages[key]
	if !ok {
		message = make(eight)
		p.messages[key] = message
	}
	if message.add(parts) {
		p.out.write(map[string]any{
			"event": "partial",
			"topic": topic,
			"group": base64.StdEncoding.EncodeToString(group),
			"data":  base64.StdEncoding.EncodeToString(message.lacking(0)),
		})
	}
	p.mu.Unlock()
	return pubsub.PublishPartial(p.pubsub, topic, group, func(
		peers map[peer.ID]partialPeer, requests func(peer.ID) bool,
	) iter.Seq2[peer.ID, partialmessages.PublishAction] {
		return p.actions(message, peers, requests)
	})
}

func (p *partials) actions(
	message eight, peers map[peer.ID]partialPeer, requests func(peer.ID) bool,
) iter.Seq2[peer.ID, partialmessages.PublishAction] {
	return func(yield func(peer.ID, partialmessages.PublishAction) bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		have := message.bits()
		for id, known := range peers {
			var action partialmessages.PublishAction
			if len(known.theirs) == 1 && requests(id) {
				action.EncodedPartialMessage = message.lacking(known.theirs[0])
				known.theirs = []byte{known.theirs[0] | have}
			}
			if len(known.told) == 0 || known.told[0] != have {
				action.EncodedPartsMetadata = []byte{have}
				known.told = []byte{have}
			}
			peers[id] = known
			if !yield(id, action) {
				return
			}
		}
	}
}
