from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oci.archive.options import S3Options
from oci.errors import CancelToken, InvalidDocument, InvalidInput, NotFound
from oci.mirror.config import Mirror, MirrorDestination, MirrorSource
from oci.mirror.policy import KeepAlive, LatestBy
from oci.mirror.reader import json_schema, make, make_config, parse_config, read_config
from oci.mirror.run import opened
from oci.reference import ArchiveName, LayoutFolder, Repository
from oci.registry.credentials.credential import Credential, Credentials, Fixed
from oci.registry.http.origin import canonical_host
from oci.registry.options import RegistryOptions
from oci.relocation.session import Access
from oci.units import parse_duration, show_duration

WHOLE = b"""\
version: 1
x-tags: &released
  - semver: ["^1.4", ">=2 <3"]
    deny: ['.*-rc.*']
    minimum_age: 7d
registries:
  docker.io: {credentials: hub, quota_reserve: 20, images_at_a_time: 4}
  corp.example:5000: {ca_files: [/etc/corp.pem]}
defaults:
  artifacts: [cosign]
  immutable: ['v?\\d+\\.\\d+\\.\\d+']
  schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}
mirrors:
  - name: web
    x-owner: somebody
    source: {repository: registry.example/shop/web}
    destinations:
      - repository: corp.example:5000/mirror/web
      - repository: oci:/srv/web
    tags: *released
    platforms: [linux/amd64]
  - <<: {name: overridden, artifacts: [referrers], keep_alive: always}
    name: shop
    source: {bundle: "registry.example/shop/bundle:1.4.0"}
    destinations: [{archive: s3://handover/shop.tar}]
    schedule: {interval: 6h}
    tags:
      - latest: 3
        latest_by: created
        x-why: three are enough
"""


def refused(text: str, where: str = "mirrors.yaml") -> str:
    with pytest.raises(InvalidDocument) as caught:
        parse_config(text.encode(), where)
    return caught.value.message


def with_mirror(keys: str) -> str:
    return f"""\
version: 1
mirrors:
  - name: web
    source: {{repository: registry.example/shop/web}}
    destinations: [{{repository: corp.example/mirror/web}}]
{keys}"""


def test_a_file_is_read_whole() -> None:
    config = parse_config(WHOLE, "mirrors.yaml")

    web, shop = config.mirrors
    assert web.source.store == Repository("registry.example", "shop/web")
    assert [one.store for one in web.destinations] == [
        Repository("corp.example:5000", "mirror/web"),
        LayoutFolder("/srv/web"),
    ]
    assert web.tags[0].semver == ("^1.4", ">=2 <3")
    assert web.tags[0].minimum_age == timedelta(days=7)
    assert web.registries == {"registry.example", "corp.example:5000"}
    assert shop.destinations[0].store == ArchiveName(("s3://handover/shop.tar",))
    assert shop.tags[0].latest_by is LatestBy.CREATED
    assert config.by_host[canonical_host("index.docker.io")].credentials == "hub"
    assert config.by_host["corp.example:5000"].ca_files == ("/etc/corp.pem",)
    assert "unheard.example" not in config.by_host


def test_a_mirror_takes_from_the_defaults_what_it_does_not_say_itself() -> None:
    web, shop = parse_config(WHOLE, "mirrors.yaml").mirrors

    assert web.artifacts == ("cosign",)
    assert shop.artifacts == ("referrers",)
    assert web.immutable == shop.immutable == (r"v?\d+\.\d+\.\d+",)
    assert web.schedule is not None
    assert (web.schedule.cron, web.schedule.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert shop.schedule is not None
    assert (shop.schedule.cron, shop.schedule.interval) == ("", timedelta(hours=6))


def test_keys_of_a_mapping_outrank_those_merged_into_it() -> None:
    shop = parse_config(WHOLE, "mirrors.yaml").mirrors[1]

    assert shop.name == "shop"
    assert shop.keep_alive is KeepAlive.ALWAYS


def test_the_models_survive_a_trip_through_json() -> None:
    config = parse_config(WHOLE, "mirrors.yaml")

    assert make_config(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_hold_for_a_program_as_for_a_file() -> None:
    config = make_config(
        {
            "version": 1,
            "defaults": {"keep_alive": "always"},
            "mirrors": [
                {"name": "a", "source": {"lock": "x.yml"}, "destinations": [{"repository": "corp.example/mirror/a"}]}
            ],
        }
    )

    assert config.mirrors[0].keep_alive is KeepAlive.ALWAYS


def test_every_problem_is_said_with_its_line_and_path() -> None:
    said = refused(
        """\
version: 1
mirrors:
  - name: web
    source: {repository: registry.example/shop/web}
    destnations:
      - repository: corp.example/mirror/web
    tags:
      - semver: ["^1.4"]
        minimum_age: 7 days
        allow:
          - 'v.*'
          - '('
""",
        "/etc/mirrors.yaml",
    )

    lines = said.splitlines()
    assert lines[0].startswith(
        "/etc/mirrors.yaml:10: mirrors[0].tags[0].allow: '(' is no regular expression: missing )"
    )
    assert lines[1].startswith("/etc/mirrors.yaml:9: mirrors[0].tags[0].minimum_age: '7 days' is no length of time")
    assert lines[2:] == [
        "/etc/mirrors.yaml:3: mirrors[0].destinations: field required",
        "/etc/mirrors.yaml:5: mirrors[0].destnations: unknown key; did you mean destinations?",
    ]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            "    tags: [{allow: [1.10]}]\n",
            "mirrors.yaml:6: mirrors[0].tags[0].allow[0]: expected text: put it in",
        ),
        ("    tags: [{semver: [abc]}]\n", "'abc' is no range of versions"),
        ("    tags: [{minimum_age: 9d, maximum_age: 2d}]\n", "nothing is older than minimum_age"),
        (
            "    tags: [{minimum_age: 7}]\n",
            "minimum_age: expected a length of time such as 7d or 12h, got a whole number",
        ),
        ("    referrers_every: 0.5\n", "expected a length of time such as 7d or 12h, got a number"),
        ("    tags: {allow: [a]}\n", "mirrors.yaml:6: mirrors[0].tags: input should be a valid list"),
        ("    schedule: {cron: '0 3 * *'}\n", "has not the five fields of cron"),
        ("    schedule: {cron: '0 3 * * *', interval: 6h}\n", "exactly one of cron, interval and rrule"),
        ("    schedule: {cron: '0 3 * * *', timezone: Mars/Olympus}\n", "'Mars/Olympus' is no time zone"),
        ("    schedule: {rrule: BYDAY=MO}\n", "needs FREQ="),
        ("    platforms: [amiga]\n", "mirrors.yaml:6: mirrors[0].platforms"),
        ("    source: {lock: a.yml}\n", "mirrors.yaml:6: the key 'source' comes twice"),
        ("    on_failure: shrug\n", "mirrors.yaml:6: mirrors[0].on_failure: input should be 'continue' or 'stop'"),
        ("    limits: {concurrency: 0}\n", "greater than or equal to 1"),
        ("    tags: *nowhere\n", "mirrors.yaml:6: the alias 'nowhere' stands for nothing"),
        ("    tags: !!python/object:os.system []\n", "mirrors.yaml:6: tag"),
        ("    tags: [\n", "not YAML"),
        ("    password: hunter2\n", "unknown key"),
    ],
)
def test_what_is_not_understood_is_refused(keys: str, problem: str) -> None:
    said = refused(with_mirror(keys))

    assert problem in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("source", "destination", "problem"),
    [
        ({"repository": "registry.example/shop/web:1"}, {"repository": "corp.example/mirror/a"}, "carries a tag"),
        ({"repository": "a.example/aa", "lock": "x"}, {"repository": "corp.example/mirror/a"}, "exactly one of"),
        ({"repository": "a.example/aa"}, {}, "exactly one of"),
        ({"repository": "a.example/aa"}, {"repository": "a.example/aa"}, "to itself"),
        ({"repository": "a.example/aa"}, {"archive": "s3://bucket"}, "names no object"),
        ({"repository": "a.example/aa"}, {"archive": "oci-archive:a.tar"}, "a mirror writes no oci-archive"),
        ({"repository": "a.example/aa"}, {"archive": "docker-archive:a.tar"}, "a mirror writes no docker-archive"),
    ],
)
def test_places_that_make_no_sense_are_refused(
    source: dict[str, str], destination: dict[str, str], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        make(Mirror, {"name": "a", "source": source, "destinations": [destination]})


def test_a_destination_is_named_once() -> None:
    twice = (MirrorDestination(repository="corp.example/mirror/a"),) * 2

    with pytest.raises(InvalidInput, match="named twice"):
        Mirror(name="a", source=MirrorSource(lock="x.yml"), destinations=twice)


def test_two_mirrors_of_one_name_are_refused() -> None:
    text = with_mirror("") + with_mirror("").partition("mirrors:\n")[2]

    assert refused(text) == "mirrors.yaml:6: mirrors[1]: two mirrors are named 'web'"


def test_a_mistake_in_the_defaults_is_said_once() -> None:
    said = refused(with_mirror("").replace("mirrors:", "defaults:\n  artifacts: [cosin]\nmirrors:"))

    assert said.startswith("mirrors.yaml:3: defaults.artifacts: 'cosin' ")
    assert len(said.splitlines()) == 1


def test_what_defaults_say_is_checked_where_it_meets_a_mirror() -> None:
    said = refused(
        """\
version: 1
defaults: {platforms: [linux/arm64]}
mirrors:
  - name: locked
    source: {lock: images.yml}
    destinations: [{repository: corp.example/mirror/web}]
"""
    )

    assert said == (
        "mirrors.yaml:4: mirrors[0]: platforms can be chosen for a repository; "
        "a bundle or lock pins its images by digest"
    )


@pytest.mark.parametrize("text", ["", "[]", "version: 2\nmirrors: []\n", "mirrors: []\n", "version: '1'\n"])
def test_a_file_says_its_version(text: str) -> None:
    assert "version" in refused(text)


def test_a_bomb_of_aliases_is_refused_in_no_time() -> None:
    levels = "\n".join(f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))

    assert "values" in refused(f"x-0: &a0 [lol]\n{levels}\nversion: 1\nmirrors: *a11\n")


def test_an_alias_of_itself_is_refused() -> None:
    assert "the alias 'me' stands for nothing" in refused("version: 1\nmirrors: &me [*me]\n")
    assert "the alias 'me' stands for nothing" in refused("version: 1\nmirrors: &me\n  <<: *me\n")


def test_deep_nesting_is_refused() -> None:
    assert "nested more than 32 deep" in refused("version: 1\nmirrors: " + "[" * 1000 + "]" * 1000)


def test_a_huge_file_is_refused() -> None:
    assert "more than" in refused("#" * (5 << 20))


def test_a_host_that_begins_like_an_extension_is_a_host() -> None:
    config = parse_config(b"version: 1\nregistries:\n  x-ray.example: {retries: 1}\n  x-old: {retries: 2}\n", "m")

    assert {host: registry.retries for host, registry in config.registries.items()} == {"x-ray.example": 1}


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="reading the mirrors"):
        read_config(str(tmp_path / "mirrors.yaml"))


def test_mirrors_are_chosen_by_name_in_the_order_of_the_file() -> None:
    config = parse_config(WHOLE, "mirrors.yaml")

    assert [mirror.name for mirror in config.chosen([])] == ["web", "shop"]
    assert [mirror.name for mirror in config.chosen(["shop", "web"])] == ["web", "shop"]
    with pytest.raises(InvalidInput, match=r"there is no mirror named 'wep'.*did you mean web"):
        config.chosen(["wep"])


def test_the_schema_knows_every_key_and_allows_extensions() -> None:
    schema = json_schema()

    mirror = schema["$defs"]["Mirror"]
    assert mirror["properties"].keys() == set(Mirror.__struct_fields__)
    assert mirror["additionalProperties"] is False
    assert "^x-" in mirror["patternProperties"]
    assert "^x-" in schema["patternProperties"]
    assert schema["$defs"]["TagRule"]["properties"]["minimum_age"]["type"] == "string"
    json.dumps(schema)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1d12h", 129_600), ("2w", 1_209_600), ("", 0), ("30m", 1_800)]
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    duration = parse_duration(text)

    assert duration.total_seconds() == seconds
    assert parse_duration(show_duration(duration)) == duration


def test_a_rule_has_the_parts_of_the_default_rules_that_it_does_not_give() -> None:
    config = make_config(
        {
            "defaults": {
                "tags": [{"deny": [".*-rc.*"], "latest": 5}, {"allow": ["stable"]}],
                "never": ["dev"],
                "limits": {"concurrency": 3},
            },
            "mirrors": [
                {
                    "name": "a",
                    "source": {"repository": "a.example/aa"},
                    "destinations": [{"repository": "b.example/aa"}],
                    "tags": [{"semver": ["^1"], "latest": 2}],
                    "never": ["nightly"],
                    "limits": {"images_per_run": 7},
                },
                {
                    "name": "b",
                    "source": {"repository": "a.example/bb"},
                    "destinations": [{"repository": "b.example/bb"}],
                },
            ],
        }
    )

    own, whole = config.mirrors
    assert [rule.to_dict() for rule in own.tags] == [
        {"deny": [".*-rc.*"], "semver": ["^1"], "latest": 2},
        {"allow": ["stable"], "semver": ["^1"], "latest": 2},
    ]
    assert own.never == ("dev", "nightly")
    assert (own.limits.concurrency, own.limits.images_per_run) == (3, 7)
    assert whole.tags == config.defaults.tags


@pytest.mark.parametrize("cron", ["99 99 99 99 99", "0 3 * * 8", "a b c d e", "0 0 30 2 *"])
def test_a_cron_expression_that_is_nonsense_is_refused(cron: str) -> None:
    assert "is no cron expression" in refused(with_mirror(f"    schedule: {{cron: '{cron}'}}\n"))


@pytest.mark.parametrize(
    "rule", ["FREQ=SOMETIMES", "FREQ=DAILY;COUNT=x", "FREQ=DAILY;FOO=1", "FREQ=DAILY;INTERVAL=0", "FREQ=DAILY;COUNT=0"]
)
def test_a_recurrence_rule_that_is_nonsense_is_refused(rule: str) -> None:
    assert "is no recurrence rule" in refused(with_mirror(f"    schedule: {{rrule: '{rule}'}}\n"))


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31",
        "BYMONTHDAY=-31;FREQ=YEARLY;BYMONTH=4,6",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=YEARLY;BYYEARDAY=366;BYMONTH=1",
        "FREQ=MONTHLY;BYSETPOS=40;BYDAY=MO",
        "FREQ=YEARLY;INTERVAL=9000",
    ],
)
def test_a_recurrence_rule_that_never_comes_is_refused_without_looking_for_its_day(rule: str) -> None:
    assert "names no day" in refused(with_mirror(f"    schedule: {{rrule: '{rule}'}}\n"))


@pytest.mark.parametrize(
    "rule",
    ["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", "FREQ=MONTHLY;BYMONTHDAY=31", "FREQ=YEARLY;BYMONTH=2,3;BYMONTHDAY=31"],
)
def test_a_recurrence_rule_of_rare_days_is_taken(rule: str) -> None:
    schedule = parse_config(with_mirror(f"    schedule: {{rrule: '{rule}'}}\n").encode(), "m", {}).mirrors[0].schedule

    assert schedule is not None
    assert schedule.following(datetime(2026, 1, 1, tzinfo=UTC), "web") is not None


def test_variables_come_from_a_list_of_names() -> None:
    text = with_mirror("    never: ['${PREFIX}-.*', 'cost$$']\n").replace(
        "registry.example/shop/web", '"${HOST}/shop/web"'
    )
    listed = f"environment: [HOST, PREFIX]\n{text}".encode()

    config = parse_config(listed, "mirrors.yaml", {"HOST": "eu.example", "PREFIX": "dev", "SECRET": "hunter2"})

    assert str(config.mirrors[0].source) == "eu.example/shop/web"
    assert config.mirrors[0].never == ("dev-.*", "cost$")
    with pytest.raises(InvalidDocument, match=r"mirrors.yaml:5: .*the variable HOST isn't set"):
        parse_config(listed, "mirrors.yaml", {"PREFIX": "dev"})
    stranger = listed.replace(b"${PREFIX}", b"${SECRET}")
    with pytest.raises(InvalidDocument, match=r"\$\{SECRET\} isn't among the names under `environment`"):
        parse_config(stranger, "mirrors.yaml", {"HOST": "eu.example", "PREFIX": "dev", "SECRET": "hunter2"})


def test_a_file_without_a_list_of_variables_has_none() -> None:
    config = parse_config(with_mirror("    never: ['a$', 'b$$']\n").encode(), "m", {})

    assert config.mirrors[0].never == ("a$", "b$$")
    with pytest.raises(InvalidDocument, match=r"m:\d+: .*never.*names under `environment`: \[HOME\]"):
        parse_config(with_mirror("    never: ['${HOME}']\n").encode(), "m", {"HOME": "/root"})


def test_one_registry_in_two_spellings_is_refused() -> None:
    said = refused("version: 1\nregistries:\n  corp.example: {retries: 1}\n  CORP.example:443: {retries: 2}\n")

    assert said == "mirrors.yaml:4: registries.CORP.example:443: 'corp.example' is the same registry"


@pytest.mark.parametrize("host", ["*", "*.example", "-x.example", "x.example:99999", "[::1", "a..b"])
def test_what_is_no_host_is_no_registry_and_its_line_is_named(host: str) -> None:
    said = refused(f"version: 1\nregistries:\n  corp.example: {{}}\n  '{host}': {{retries: 2}}\n")

    assert said.startswith(f"mirrors.yaml:4: registries.{host}: ")
    with pytest.raises(InvalidInput, match="registries"):
        make_config({"registries": {host: {}}})


@pytest.mark.parametrize("interval", ["1us", "1ms", "999ms", "3651d", "999999999d"])
def test_an_interval_has_a_least_and_a_most(interval: str) -> None:
    said = refused(with_mirror(f"    schedule: {{interval: {interval}}}\n"))

    assert said.startswith("mirrors.yaml:6: mirrors[0].schedule.interval: ")


def test_rules_that_no_calendar_ends_and_those_that_need_a_start_are_refused() -> None:
    for rule in (
        "FREQ=SECONDLY",
        "FREQ=MINUTELY;INTERVAL=30",
        "FREQ=DAILY;COUNT=5",
        "FREQ=DAILY;UNTIL=20990101T000000Z",
    ):
        said = refused(with_mirror(f"    schedule: {{rrule: '{rule}'}}\n"))
        assert said.startswith("mirrors.yaml:6: mirrors[0].schedule.rrule: ")


def test_what_a_file_says_of_a_registry_lies_over_what_the_run_says() -> None:
    registry = make_config({"registries": {"corp.example": {"retries": 9}}}).by_host["corp.example"]
    flags = RegistryOptions(insecure=True, ca_files=("/etc/ca.pem",), retries=2)

    over = registry.over(flags)

    assert (over.insecure, over.ca_files, over.retries) == (True, ("/etc/ca.pem",), 9)


def test_a_key_of_a_bucket_is_no_part_of_a_file() -> None:
    said = refused("version: 1\nbuckets:\n  handover: {secret_key: hunter2}\n")

    assert "secret_key: unknown key" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "value",
    [
        {"mirrors": [{"name": "web\n"}]},
        {"registries": {"registry.example": {"proxy": "http://proxy.example:1\n"}}},
        {"registries": {"registry.example": {"aws_role": "arn:aws:iam::1:role/x\n"}}},
        {"buckets": {"handover": {"endpoint": "https://s3.example\n"}}},
        {"buckets": {"handover\n": {"endpoint": "https://s3.example"}}},
    ],
    ids=str,
)
def test_a_line_break_at_the_end_is_no_part_of_what_a_pattern_allows(value: dict[str, Any]) -> None:
    mirror = {"source": {"repository": "registry.example/web"}, "destinations": [{"repository": "registry.example/to"}]}
    mirrors = [{"name": "web", **mirror, **given} for given in value.get("mirrors", [{}])]

    with pytest.raises(InvalidInput, match=r"name|proxy|aws_role|endpoint|handover"):
        make_config({**value, "mirrors": mirrors})


def test_a_variable_that_can_not_be_used_is_the_only_thing_that_is_said() -> None:
    """What is wrong with the text without it, or because of it elsewhere, is no mistake of its own."""
    text = """\
version: 1
environment: [HOST, NUMBER, WORD, HOURS]
registries:
  corp.example: {retries: "${NUMBER}", ca_files: ["${WORD}"]}
defaults:
  never: ["${WORD}"]
  artifacts: ["${WORD}"]
mirrors:
  - name: web
    source: {repository: "${HOST}/shop/web"}
    destinations: [{repository: "corp.example/${WORD}"}, {archive: "${WORD}"}]
    platforms: ["${WORD}"]
    schedule: {interval: "${HOURS}"}
    tags: "${WORD}"
  - name: "${WORD}"
    source: {bundle: "${HOST}/shop/bundle:1.0"}
    destinations: [{repository: "corp.example/bundle"}]
    limitz: {}
"""
    with pytest.raises(InvalidDocument) as caught:
        parse_config(text.encode(), "m", {})

    said = sorted(line.rpartition(": ")[2] for line in caught.value.message.splitlines())
    assert said == [
        *(f"the variable {name} isn't set" for name in ("HOST", "HOURS", "NUMBER", "WORD")),
        "unknown key; did you mean limits?",
    ]


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\x1b[2J", "\udcff"])
def test_a_variable_with_a_control_character_is_refused(value: str) -> None:
    text = "environment: [NAME]\n" + with_mirror("    receipts: {folder: '${NAME}'}")

    with pytest.raises(InvalidDocument, match="the variable NAME has a line break"):
        parse_config(text.encode(), "m", {"NAME": value})


@pytest.mark.parametrize("value", ["a: b", "'x", '"', "# x", "[a", "&x", "*x", "${HOME}", "$$", "{{tag}}"])
def test_a_variable_is_text_whatever_yaml_would_make_of_it(value: str) -> None:
    text = "environment: [NAME]\n" + with_mirror("    receipts: {folder: '${NAME}'}")

    assert parse_config(text.encode(), "m", {"NAME": value, "HOME": "/root"}).mirrors[0].receipts.folder == value


@pytest.mark.parametrize("written", ["${NAME:-x}", "${NAME-x}", "${NAME", "${MY-NAME}"])
@pytest.mark.parametrize("listed", ["environment: [NAME]\n", ""])
def test_what_a_shell_would_read_behind_the_name_of_a_variable_is_refused(written: str, listed: str) -> None:
    text = listed + with_mirror(f"    receipts: {{folder: '{written}'}}")

    with pytest.raises(InvalidDocument, match=r"only \$\{NAME\} is read"):
        parse_config(text.encode(), "m", {"NAME": "x"})


def test_a_bucket_and_a_tag_of_its_objects_may_have_names_like_extensions() -> None:
    text = "version: 1\nbuckets: {x-archive: {region: eu-west-1, tags: {x-team: shop}, x-note: hello}}\n"

    bucket = parse_config(text.encode(), "m").buckets["x-archive"]

    assert (bucket.region, bucket.tags) == ("eu-west-1", {"x-team": "shop"})


def test_what_a_file_says_of_a_registry_or_bucket_holds_where_it_is_the_default_too() -> None:
    text = "version: 1\nregistries: {corp.example: {verify_tls: true, retries: 7}}\nbuckets: {b: {verify_tls: true}}\n"
    config = parse_config(text.encode(), "m")
    registry, bucket = config.by_host["corp.example"], config.buckets["b"]

    over = registry.over(RegistryOptions(verify_tls=False, insecure=True), explicit=registry.explicit)

    assert (over.verify_tls, over.insecure, over.retries) == (True, True, 7)
    assert bucket.over(S3Options(verify_tls=False), explicit=bucket.explicit).verify_tls
    assert "explicit" not in str(config.to_dict())


@pytest.mark.parametrize(
    ("written", "named"),
    [("docker.io", "registry-1.docker.io"), ("corp.example", "corp.example:443"), ("CORP.example:443", "corp.example")],
)
def test_a_registry_is_the_same_in_each_spelling(written: str, named: str) -> None:
    text = f"""\
version: 1
registries: {{"{written}": {{retries: 7, anonymous: true}}}}
mirrors:
  - name: web
    source: {{repository: "{named}/shop/web"}}
    destinations: [{{repository: other.example/web}}]
"""
    config = parse_config(text.encode(), "m")
    [mirror] = config.mirrors
    [registry] = mirror.registries - {"other.example"}
    access = Access(credentials=Credentials([Fixed(Credential("bob", "secret"))]))

    assert config.alone(mirror).registries == config.registries
    with opened(config, [mirror], lambda side, concurrency: access, CancelToken()) as session:
        transport = session.repository("source", Repository(registry, "shop/web")).transport
    assert transport.settings.retries == 7
    assert transport.login._credentials.find(registry, "shop/web").is_anonymous
