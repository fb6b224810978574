"""Which test is which case, for what handshakes, muxers, transports, relays, hole punching and AutoNAT are judged by:
each row has its tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROWS = {
    "M6 rapid resets": {
        "hostile/test_yamux": ["test_M6_rapid_reset_ends_the_connection", "test_M6_open_end_and_reset"],
        "hostile/test_muxers": ["test_M6_mplex_rapid_reset_and_empty_messages_cost_the_connection"],
        "hostile/test_quic": ["test_M6_rapid_reset_ends_the_connection"],
    },
    "M9 slow readers": {
        "hostile/test_muxers": [
            "test_M9_two_hundred_streams_that_nobody_reads",
            "test_M9_an_mplex_stream_that_nobody_reads_is_given_up",
        ],
        "transports/quic/test_machine": [
            "test_a_slow_reader_holds_its_peer_back",
            "test_what_nobody_reads_is_given_up_in_the_end",
        ],
    },
    "M10 storms of half-closes and resets": {
        "hostile/test_muxers": ["test_M10_storms_of_everything"],
        "hostile/test_quic": ["test_M10_storms_of_everything"],
    },
    "M11 everybody writes, nobody reads": {
        "hostile/test_muxers": [
            "test_M11_everybody_writes_through_a_pipe_that_is_always_full",
            "test_M11_close_while_the_peer_reads_nothing",
        ],
        "transports/quic/test_endpoint": [
            "test_a_full_socket_loses_nothing",
            "test_closing_does_not_wait_for_ever",
        ],
    },
    "R1 floods of reservations": {
        "protocols/relay/test_reservations": [
            "test_r1_a_thousand_peers",
            "test_r1_one_address_or_neighbourhood",
            "test_r1_a_storm_of_renewals_changes_nothing",
        ],
        "protocols/relay/test_relay": [
            "test_r1_reservations_are_bounded",
            "test_r1_a_storm_of_renewals_gets_one_signature",
            "test_r1_silent_requests_end",
            "test_r4_requests_that_are_none",
        ],
        "protocols/relay/test_hostile": ["test_r1_whoever_has_gone_gets_no_reservation"],
        "protocols/relay/test_discovery": ["test_r1_a_flood_of_relays_that_are_none"],
    },
    # py-libp2p 1342, CONNECT without a reservation; rust, a connected destination without one.
    "R2 circuits without consent, and relays that lie": {
        "protocols/relay/test_relay": [
            "test_r2_no_reservation",
            "test_r2_after_the_end_of_a_reservation",
            "test_r2_to_oneself",
            "test_r2_stop_without_being_asked",
            "test_r6_nothing_over_a_relayed_connection",
            "test_r10_a_reservation_ends_with_the_connection",
        ],
        "protocols/relay/test_client": [
            "test_r2_absurd_terms",
            "test_r2_answers_that_break_the_rules",
            "test_r2_somebody_elses_voucher",
            "test_r2_a_stale_voucher",
        ],
        "protocols/relay/test_codec": ["test_r2_vouchers_that_are_not_genuine"],
        "protocols/relay/test_hostile": [
            "test_r2_an_address_too_long_to_be_announced_is_left_out",
            "test_r2_a_relay_does_not_fill_what_a_host_says_about_itself",
            "test_r2_a_reservation_that_would_be_renewed_all_the_time_is_not_taken",
            "test_r10_a_relayed_connection_keeps_no_reservation",
        ],
    },
    "R3 limits of circuits": {
        "protocols/relay/test_relay": [
            "test_r9_r3_data_is_cut_to_the_byte",
            "test_r3_data_is_cut_for_both_ends",
            "test_r3_time_is_cut_to_the_second",
            "test_r3_one_side_that_stalls_keeps_its_place_no_longer_than_others",
            "test_r3_the_seventeenth_circuit",
            "test_r14_protocols_opt_in",
        ],
        "protocols/relay/test_v1": ["test_r1_4_data_is_cut", "test_r1_4_time_is_cut", "test_r1_4_circuits_are_bounded"],
    },
    "R4 hole punching": {
        "protocols/dcutr/test_dcutr": [
            "test_d3_d5_both_begin_at_the_same_moment",
            "test_r4_a_slow_answer_is_waited_for_no_longer_than_that",
            "test_r4_no_sync",
            "test_r4_many_addresses",
            "test_r4_addresses_that_lead_inside",
            "test_r4_the_wrong_side_starts",
            "test_r4_the_starter_gives_up",
            "test_r4_three_tries_and_the_relay_stays",
            "test_r4_three_tries_whoever_asks",
        ],
        "protocols/dcutr/test_codec": ["test_r4_sixteen_addresses"],
    },
    # libp2p/specs 640, payments saved up and fired together; version 1 that dials whatever it is told.
    "R5 AutoNAT as a weapon": {
        "protocols/autonat/test_server": [
            "test_an3_r5_no_other_address_is_ever_dialled",
            "test_an2_a_failure_is_told_when_the_time_is_over",
            "test_av5_no_dial_before_all_is_paid",
            "test_r5_trickled_and_tiny_payments",
            "test_r5_one_victim_is_dialled_once_in_ten_seconds",
            "test_r5_who_pays_slowly_and_who_pays_at_once",
            "test_r5_many_servers_and_one_victim",
            "test_av9_limits",
        ],
    },
    "R6 AutoNAT servers that lie": {
        "protocols/autonat/test_client": [
            "test_r6_a_success_without_the_nonce_is_worth_nothing",
            "test_r6_nine_of_ten_deny",
            "test_r6_a_guessed_nonce",
        ],
        "protocols/autonat/test_decisions": [
            "test_r6_no_number_of_denials_outweighs_a_proof",
            "test_r6_only_who_gave_a_proof_takes_it_back",
            "test_r6_no_change_of_mind_within_five_minutes",
        ],
    },
    "S1 another peer answers": {
        "hostile/test_security": ["test_S1_another_peer_answers"],
        "hostile/test_tls": ["test_S1_another_peer_answers"],
        "transports/quic/test_endpoint": ["test_wrong_peer"],
        "transports/quic/test_tls": ["test_another_peer_answers"],
        "protocols/relay/test_client": ["test_s1_a_relay_that_connects_to_somebody_else"],
    },
    "S2 signatures": {
        "hostile/test_security": [
            "test_S2_no_payload_without_a_proof_is_accepted",
            "test_S2_a_thief_reaches_no_handler",
        ],
        "hostile/test_tls": ["test_S2_no_extension_without_a_proof_is_accepted"],
        "crypto/test_certificate": ["test_S2_no_byte_can_be_changed"],
        "crypto/test_keys": ["test_s2_every_flipped_byte_is_refused"],
        "transports/quic/test_tls": ["test_the_clients_flight_altered"],
    },
    "S3 no certificate, or no proof": {
        "hostile/test_tls": [
            "test_S3_a_dialer_without_a_certificate_gets_no_connection",
            "test_S3_a_certificate_without_a_proof_gets_no_connection",
        ],
        "transports/quic/test_tls": ["test_clients_that_prove_nothing", "test_self_test_fails_closed"],
        "transports/quic/test_engine": ["test_no_stream_before_the_identity"],
    },
    "S4 certificates": {
        "crypto/test_certificate": ["test_S4_refused_with_a_reason"],
        "security/test_tls": [
            "test_S4_a_certificate_expires_on_the_way",
            "test_T2_a_chain_is_refused",
            "test_T9_a_dialer_without_ALPN_is_refused",
            "test_T10_a_server_name_is_ignored",
        ],
        "transports/quic/test_tls": ["test_certificates_that_do_not_hold", "test_hellos_that_are_refused"],
    },
    "S5 keys": {
        "hostile/test_tls": ["test_S5_identity_keys_are_looked_at_before_they_are_used"],
        "crypto/test_keys": ["test_s5_unknown_type_is_refused", "test_s5_giant_key_message_is_refused_unread"],
    },
    "S6 records": {
        "hostile/test_security": [
            "test_S6_the_first_bad_tag_is_the_last_record",
            "test_S6_replayed_swapped_and_dropped_records_end_it",
        ],
        "security/test_tls": ["test_S6_replayed_swapped_and_dropped_records_end_it"],
        "security/test_noise": ["test_N9_the_last_nonce_is_never_used_to_receive"],
        "transports/quic/test_fuzz": ["test_mutated_packets_of_a_connection"],
    },
    "S7 downgrades": {
        "hostile/test_security": [
            "test_S7_weaker_protocols_are_not_there",
            "test_S7_who_changes_the_negotiation_in_transit_gets_nothing",
            "test_S7_the_muxer_list_cannot_be_changed_in_transit",
        ],
        "hostile/test_tls": ["test_S7_the_muxer_list_cannot_be_changed_in_transit"],
        "security/test_pnet": ["test_PN3_strangers_get_nothing"],
        "transports/quic/test_tls": ["test_a_server_that_accepts_what_was_not_offered"],
    },
    "S8 signed envelopes": {
        "hostile/test_security": [
            "test_S8_hostile_records_are_refused_at_the_store",
            "test_S8_the_highest_sequence_number_ages_out",
            "test_S8_hostile_records_through_identify",
        ],
        "protocols/rendezvous/test_service": ["test_r7_rv5_records_that_prove_nothing"],
    },
    "T2 floods of connections": {
        "hostile/test_transport": ["test_T2_a_flood_from_one_address", "test_T2_hopping_through_ipv6"],
        "hostile/test_sockets": ["test_T2_a_flood_from_one_address_and_handshakes_from_many"],
        "transports/quic/test_packets": ["test_one_neighbourhood_has_so_many_a_second"],
    },
    "T3 spoofed and unanswered Initials": {
        "hostile/test_quic": [
            "test_T3_a_flood_of_datagrams_from_everywhere",
            "test_T3_a_token_is_good_for_one_address",
            "test_T3_handshakes_that_stop_half_way",
            "test_T3_who_takes_all_places_keeps_nobody_out",
            "test_T3_hellos_full_of_gaps",
            "test_T3_many_hellos_at_once",
            "test_T3_a_flood_of_other_versions",
            "test_T3_answers_to_strangers_do_not_pile_up",
            "test_T3_resets_that_are_forged",
        ],
    },
    "T5 many connections end at once": {
        "hostile/test_transport": ["test_T5_many_connections_end_at_once"],
        "hostile/test_many": ["test_T5_hundreds_of_connections_between_processes"],
    },
    "T6 frames of QUIC": {
        "hostile/test_quic": [
            "test_T6_frames_that_cost_a_peer_its_connection",
            "test_T6_frames_that_cost_next_to_nothing",
            "test_T6_acknowledgements_full_of_gaps",
            "test_T6_a_peer_that_moves_all_the_time",
            "test_T6_early_data_is_not_there",
            "test_T6_transport_parameters_that_end_too_early",
        ],
        "transports/quic/test_fuzz": ["test_transport_parameters_that_are_none"],
    },
    "T7 HTTP": {
        "hostile/test_websocket": [
            "test_T7_a_header_a_byte_a_second",
            "test_T7_requests_that_are_no_handshake",
            "test_T7_frames",
            "test_T7_pings_without_end_and_without_reading",
        ],
        "transports/test_websocket": ["test_M5_frames_without_payload_and_without_end"],
    },
}


@cache
def _tests(module: str) -> frozenset[str]:
    tree = ast.parse((Path(__file__).parent.parent / f"{module}.py").read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    for module, tests in ROWS[row].items():
        assert not set(tests) - _tests(module), f"{row} in {module}"
