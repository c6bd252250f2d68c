"""What a review of the first version found, and the tests that fail without the mend: a line for each weakness.

`python -m tests.findings` writes docs/reference/findings.md.
"""

# ruff: noqa: E501 - a finding is a line

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "findings.md"

REGISTRY, HTTP = "oci/registry", "oci/registry/http"
BOUNDARIES: Mapping[str, tuple[str, ...]] = {
    "G1 An archive's tag is a path to another repository": (
        "oci/archive/test_names.py::test_an_import_never_touches_another_repository",
        "oci/archive/test_names.py::test_the_command_refuses_the_whole_archive",
        "oci/archive/test_names.py::test_a_name_in_a_layout_archive_is_one_by_grammar",
        f"{HTTP}/test_target.py::test_a_hostile_tag_never_becomes_a_url",
        f"{HTTP}/test_target.py::test_a_hostile_repository_never_becomes_a_url",
        "oci/relocation/test_plan.py::test_what_is_no_identifier_is_refused",
    ),
    "G2 Strangers ask for a login": (
        f"{HTTP}/test_target.py::test_no_login_reaches_a_stranger",
        f"{HTTP}/test_target.py::test_another_token_service_than_the_first_is_refused_by_name",
        f"{HTTP}/test_target.py::test_a_layers_urls_get_no_login_even_at_the_registry",
        f"{REGISTRY}/test_reading.py::test_a_layer_from_its_foreign_address",
        "oci/registry/http/test_target.py::test_a_redirect_that_comes_back_from_a_stranger_brings_no_login",
    ),
    "G3 Logins of flags and variables go to hosts of a lock": (
        f"{REGISTRY}/credentials/test_fetching.py::test_the_login_of_flags_goes_to_the_registries_that_were_named",
        "flows/cli/test_copy_logins.py::test_a_registry_that_only_a_lock_names_gets_no_login_of_the_command_line",
    ),
    "G4 Prune deletes what is needed": (
        "oci/prune/test_adversarial.py::test_a_list_that_is_cut_short_without_a_link_is_asked_on",
        "oci/prune/test_adversarial.py::test_a_list_that_hides_a_kept_tag_ends_it",
        "oci/prune/test_adversarial.py::test_a_tag_alone_is_never_tried_on_a_tag_in_use",
        "oci/prune/test_adversarial.py::test_a_bundle_of_another_repository_keeps_what_it_lists_here",
        "oci/prune/test_adversarial.py::test_what_can_not_be_known_is_said_before_anything_is_deleted",
        "oci/prune/test_planning.py::test_tags_and_digests_of_the_policy_that_are_not_there_end_it",
        "oci/prune/test_execution.py::test_what_a_registry_says_it_has_not_is_looked_at_again",
        "oci/prune/test_beside.py::test_what_moves_between_two_rounds_saves_what_it_needs",
        "oci/prune/test_beside.py::test_a_kept_tag_that_shows_nothing_is_said_before_and_looked_at_again",
        "oci/prune/test_beside.py::test_a_signature_that_moves_saves_what_it_shows",
        "oci/prune/test_beside.py::test_a_tag_that_moved_to_something_new_is_not_taken_away",
        "oci/prune/test_beside.py::test_nothing_follows_a_tag_that_took_its_manifest_along",
        "oci/prune/test_beside.py::test_what_a_registry_does_not_show_ends_it_or_is_said_before",
        "oci/prune/test_beside.py::test_listed_names_that_can_not_be_asked_for_are_said_before",
        "oci/prune/test_beside.py::test_blobs_that_layouts_share_by_a_link_are_not_deleted",
        "oci/layout/test_store.py::test_a_manifest_that_can_not_be_read_keeps_what_it_names",
        "oci/prune/test_execution.py::test_a_layout_with_a_manifest_that_can_not_be_read_is_pruned",
        "flows/cli/test_flags.py::test_what_is_worked_on_is_named_once",
    ),
    "G5 Journals, metadata and sizes are believed": (
        "oci/export/test_file_writer.py::test_what_a_forged_journal_lists_is_hashed_before_it_is_kept",
        "oci/export/test_s3_writer.py::test_an_older_archive_that_nobody_proved_is_not_copied_from",
        "oci/export/test_stream.py::test_a_run_that_resumes_proves_what_is_stored_and_sends_what_is_missing",
        "oci/export/test_delta.py::test_wrong_bytes_in_an_older_archive_are_found_and_fetched_instead",
        "oci/layout/test_store.py::test_a_blob_with_other_bytes_of_the_same_size_is_written_again",
        f"{REGISTRY}/test_state.py::test_a_limit_that_no_run_has_learned_counts_for_nothing",
        f"{REGISTRY}/test_state.py::test_state_that_is_a_pipe_or_a_link_is_none",
        "oci/mirror/test_running.py::test_what_a_file_of_facts_says_ends_no_run",
        "flows/receiver/test_journal.py::test_what_a_journal_says_is_of_pushes_or_is_left_out",
        "oci/relocation/test_scenarios.py::test_a_repair_sends_again_what_the_destination_has_lost",
    ),
    "G6 Outputs follow or replace links and devices": (
        "oci/export/test_file_writer.py::test_no_archive_is_written_through_a_link",
        "oci/export/test_file_writer.py::test_an_unfinished_archive_is_a_file_of_this_user_alone",
        "oci/test_output.py::test_a_link_is_not_followed_and_stays",
        "oci/test_output.py::test_a_device_is_written_to_and_never_replaced",
        "oci/test_output.py::test_a_link_in_a_folder_of_everybody_is_none_of_the_system",
        "oci/test_output.py::test_what_a_program_left_for_itself_is_a_file_of_its_user_alone",
        "flows/receiver/test_journal.py::test_only_a_file_of_this_user_alone_is_a_journal",
        "flows/cli/test_named_files.py::test_an_archive_that_is_a_pipe_is_refused_at_once",
        "oci/layout/test_store.py::test_a_fifo_in_a_layout_is_not_waited_for",
        "flows/cli/test_exit_codes.py::test_standard_streams_that_are_closed_are_no_files_of_ours",
        "oci/test_metrics.py::test_a_link_is_not_written_through_and_stays",
        "oci/test_metrics.py::test_a_pipe_gets_the_numbers_and_stays_one",
        "test_architecture.py::test_paths_that_a_person_named_are_written_one_way",
        "oci/bundle/test_lockfile.py::test_a_link_is_not_followed",
        "oci/test_output.py::test_a_pipe_that_nobody_reads_or_writes_ends_in_an_error",
        "oci/test_output.py::test_a_reader_that_takes_nothing_ends_in_an_error",
        "oci/test_output.py::test_a_lock_that_somebody_holds_is_waited_for_and_not_for_ever",
        "oci/layout/test_store.py::test_the_lock_of_another_user_is_locked_all_the_same",
        "oci/layout/test_store.py::test_a_lock_that_can_not_be_opened_or_is_held_for_ever_is_named",
        "oci/test_metrics.py::test_a_pipe_without_a_reader_is_a_warning",
        "flows/cli/test_named_files.py::test_a_pipe_that_nobody_writes_to_is_not_waited_for",
        "oci/test_output.py::test_what_can_be_no_name_of_a_file_is_an_error_of_ours",
    ),
    "G7 mirrors.yaml decides over the machine": (
        "oci/mirror/test_consent.py::test_how_a_registry_is_reached_needs_consent",
        "oci/mirror/test_consent.py::test_files_of_the_machine_need_consent",
        "oci/mirror/test_consent.py::test_how_a_bucket_is_reached_needs_consent",
        "oci/mirror/test_consent.py::test_a_variable_that_may_hold_a_login_needs_consent",
        "flows/cli/test_watch.py::test_the_command_mirrors_again_and_again_reads_its_file_again_and_drains",
        "deployments/test_helm.py::test_no_value_writes_more_than_its_own_text",
        f"{HTTP}/test_connections.py::test_a_registry_without_tls_needs_a_permission_that_the_error_names",
    ),
    "G8 The guard of addresses is led around": (
        f"{HTTP}/test_address_policy.py::test_a_public_registry_may_not_send_us_there",
        f"{HTTP}/test_address_policy.py::test_a_name_that_answers_otherwise_the_second_time_leads_nowhere",
        f"{HTTP}/test_address_policy.py::test_no_setting_leads_to_the_credentials_of_a_machine",
        f"{HTTP}/test_address_policy.py::test_a_registry_that_a_lock_names_is_no_nearer_than_those_that_the_user_named",
        f"{HTTP}/test_address_policy.py::test_an_address_within_an_address_is_judged",
        "oci/registry/http/test_address_policy.py::test_what_is_not_known_to_be_public_is_not",
    ),
    "G9 Any image under `.sig` is a signature, and an image says its own age": (
        "oci/signatures/test_policy.py::test_what_is_no_signature_of_the_image_proves_nothing",
        "oci/signatures/test_policy.py::test_a_signature_of_the_key_lets_an_image_in_and_no_other",
        "oci/signatures/test_policy.py::test_a_policy_with_a_mistake_is_refused_as_a_whole",
        "oci/mirror/test_running.py::test_signatures_are_required_by_a_policy_or_not_at_all",
        "oci/mirror/test_selected.py::test_what_appears_after_the_first_look_is_as_old_as_it_was_seen_whatever_it_says",
        "oci/mirror/test_facts.py::test_what_is_new_stays_new_though_the_file_is_full",
        "oci/signatures/test_policy.py::test_a_rule_counts_in_whatever_capitals_its_host_is_written",
        "oci/signatures/test_policy.py::test_policy_json_knows_docker_hub_by_the_name_that_people_give_it",
    ),
    "G10 Results of Prefect run code, artifacts carry Markdown of strangers": (
        "tasks/test_memory.py::test_no_task_caches_and_none_persists_its_result",
        "tasks/test_memory.py::test_no_flow_persists_its_result",
        "tasks/test_pages.py::test_text_from_outside_is_no_markdown",
        "deployments/test_kubernetes.py::test_services_and_roles_point_at_what_is_there",
    ),
    "G11 The receiver is stopped by half-open connections; one token for all registries": (
        "flows/receiver/test_app.py::test_half_open_connections_of_a_peer_are_few_and_end_by_themselves",
        "flows/receiver/test_app.py::test_a_token_of_one_registry_says_nothing_of_another",
        "flows/cli/test_watch.py::test_no_stranger_holds_up_who_asks_for_health",
        "flows/cli/test_watch.py::test_what_is_no_request_of_ours_costs_nothing",
        "flows/receiver/test_notification.py::test_who_pushes_names_a_host_and_no_more",
    ),
    "G12 Text of strangers moves the terminal": (
        "flows/cli/test_visible.py::test_no_command_prints_what_moves_a_terminal",
        "flows/cli/test_visible.py::test_no_answer_of_a_registry_moves_a_terminal",
        "flows/cli/test_inspect.py::test_a_stranger_has_no_line_of_his_own",
        "flows/cli/test_visible.py::test_a_log_on_a_terminal_is_filtered_too",
        "flows/cli/test_complete.py::test_no_name_of_a_stranger_reaches_the_line_that_a_person_writes",
        f"{REGISTRY}/test_login.py::test_garbage_as_an_error_is_shown_short_and_clean",
        "flows/cli/test_visible.py::test_what_is_harmless_stays",
        "flows/cli/test_visible.py::test_a_line_break_in_a_log_makes_no_record",
    ),
    "G13 Amounts without a bound": (
        "hostile/test_corpus.py::test_each_ends_as_it_says",
        "flows/cli/test_named_files.py::test_a_file_without_an_end_is_refused",
        f"{HTTP}/test_http1.py::test_a_header_that_drips_ends_with_its_time_out",
        f"{HTTP}/test_http1.py::test_interim_answers_without_an_end_keep_to_the_time_out",
        f"{HTTP}/test_http1.py::test_a_document_without_an_end_is_refused",
        f"{HTTP}/test_target.py::test_what_is_no_host_is_a_typed_error",
        "oci/files/test_decompress.py::test_many_members_take_time_in_proportion_to_their_bytes",
        "oci/files/test_decompress.py::test_what_unpacks_to_far_more_than_it_has_is_refused_early",
        "oci/bundle/test_pull_limits.py::test_a_layer_that_is_listed_thousands_of_times_is_refused",
        f"{REGISTRY}/test_challenges.py::test_a_token_nested_without_end_is_refused",
        f"{REGISTRY}/test_challenges.py::test_lifetimes_that_make_no_sense",
        f"{REGISTRY}/test_login.py::test_a_wait_beyond_the_budget_is_refused_at_once",
        "fuzz/test_parsers.py::test_nothing_but_errors_of_ours",
        "fuzz/test_every_parser.py::test_every_parser_is_fuzzed_and_measured_or_says_why_not",
        "hostile/test_corpus.py::test_what_is_hostile_to_any_parser_is_refused_or_read",
        "hostile/test_bombs.py::test_each_is_copied_once_into_a_folder_and_an_archive_and_back",
        "oci/test_descriptor.py::test_what_two_readers_take_for_two_things_is_no_json",
        "oci/test_descriptor.py::test_a_member_of_a_docker_archive_is_read_once_however_often_it_is_named",
        "fuzz/test_growth.py::test_no_expression_is_quadratic",
        "storm/test_storm.py::test_every_end_is_proven_or_a_clean_error",
        "flows/cli/test_bounds.py::test_a_manifest_of_more_than_the_limit_goes_where_it_can_be_read_again",
        "flows/cli/test_bounds.py::test_a_list_of_too_many_says_how_many_and_a_page_names_no_setting_that_is_none",
        "oci/bundle/test_pull_limits.py::test_a_layer_that_unpacks_to_far_too_much_is_refused_unless_it_is_allowed",
    ),
    "G14 Signed URLs in logs, modes, images by tag, nothing of what it is made of": (
        f"{HTTP}/test_connections.py::test_a_signed_query_is_in_no_log_and_no_error",
        "oci/test_output.py::test_the_umask_gives_the_mode",
        "oci/files/test_folder.py::test_the_umask_decides_who_may_read",
        "oci/layout/test_store.py::test_files_can_be_read_by_whom_the_umask_allows",
        "deployments/test_containers.py::test_the_image_is_installed_by_hash_and_names_no_index",
        "deployments/test_supply.py::test_images_of_other_people_are_pinned",
        "deployments/test_supply.py::test_the_bill_of_materials_names_what_the_lock_pins_with_every_hash",
        "deployments/test_kubernetes.py::test_only_what_needs_it_reaches_the_server_and_the_receiver",
    ),
}
COPIES: Mapping[str, tuple[str, ...]] = {
    "F1 What is there is sent again to a repository without tags": (
        f"{REGISTRY}/test_uploads.py::test_blobs_of_an_interrupted_run_are_found_in_a_repository_without_tags",
        "oci/relocation/test_sharing.py::test_an_interrupted_run_is_found_again_in_a_repository_without_tags",
        "storm/test_crashes.py::test_after_a_crash",
    ),
    "F2 A plan succeeds where the copy can't": (
        "flows/cli/test_copy.py::test_a_plan_that_could_not_read_something_ends_as_the_copy_will",
        "flows/cli/test_copy.py::test_a_plan_of_an_index_without_a_child_ends_as_the_copy_will",
        "flows/cli/test_archive.py::test_a_plan_of_an_archive_that_can_not_be_written_ends_as_the_copy_will",
    ),
    "F3 --verify runs after names moved; outputs are found to be impossible at the end": (
        "oci/relocation/test_driver.py::test_names_move_after_the_proof",
        "oci/relocation/test_driver.py::test_no_name_moves_when_the_proof_fails",
        "flows/cli/test_copy.py::test_outputs_are_checked_before_the_work",
        "flows/test_relocate.py::test_a_report_that_can_not_be_written_is_refused_before_anything_is_copied",
        "oci/test_output.py::test_a_name_that_is_too_long_is_told_before_the_work_and_one_that_is_not_is_written",
    ),
    "F4 A plan between folders mounts; -i of a bundle is refused by one front and taken by the other; a shallow copy is silent": (
        "oci/relocation/test_scenarios.py::test_a_plan_that_is_carried_out_costs_what_it_said",
        "flows/cli/test_copy.py::test_a_bundle_is_no_image_whether_it_is_there_already_or_not",
        "flows/cli/test_copy.py::test_ignore_bundle_check_belongs_to_images",
    ),
    "F5 A layer of size 0 under another digest is exported": (
        "oci/export/test_stream.py::test_a_blob_that_stays_wrong_is_refused",
        "oci/export/test_amounts.py::test_a_layer_of_an_impossible_size_is_refused_before_anything_is_written",
        "oci/export/test_amounts.py::test_a_layer_of_another_size_is_moved_by_no_command",
    ),
    "F6 A layer of 2^52 bytes, a sparse manifest.json, a quadratic lock": (
        "oci/export/test_amounts.py::test_a_layer_of_an_impossible_size_is_refused_before_anything_is_written",
        "oci/archive/test_bounds.py::test_a_sparse_description_of_900_mib_takes_no_memory",
        "fuzz/test_growth.py::test_steps_grow_as_the_input_does",
    ),
    "F7 skopeo doesn't find a tag of an image layout": (
        "oci/export/test_export.py::test_an_archive_says_which_tags_skopeo_does_not_find",
        "oci/export/test_export.py::test_skopeo_copies_an_image_out_of_an_image_layout_by_its_tag",
    ),
    "F8 A foreign layer that the tar lacks isn't looked for at the destination": (
        "oci/archive/test_import.py::test_a_foreign_layer_that_was_left_out_is_mounted_from_where_the_image_came_from",
        "oci/archive/test_import.py::test_what_an_archive_lacks_may_be_at_the_destination",
    ),
    "F9 Every archive to a file needs Linux's boot id": (
        "oci/export/test_file_writer.py::test_nothing_of_one_system_is_asked_for",
        "oci/export/test_file_writer.py::test_what_a_power_failure_lost_is_written_again",
    ),
    "F10 One archive has 16, 24 and 33 blobs in three commands": (
        "oci/export/test_amounts.py::test_every_command_counts_the_same_blobs",
    ),
}
FINDINGS: Mapping[str, tuple[str, ...]] = {**BOUNDARIES, **COPIES}


def page() -> str:
    lines = [
        "# What a review found",
        "",
        "A review of the first version broke through several of its boundaries. Each line names a weakness and, of the",
        "tests in `tests/`, those that fail without its mend. `python -m tests.findings` writes this page.",
        "",
        "| weakness | tests |",
        "|---|---|",
    ]
    lines += [f"| {name} | {', '.join(f'`{test}`' for test in tests)} |" for name, tests in FINDINGS.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
