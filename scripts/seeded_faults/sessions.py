"""Who asks, and how much they may: sessions, the door, tokens, grants, rates, shares, audit, connections."""

from __future__ import annotations

from .fault import Fault

_COMMANDS = "kvtwisted/commands"
_DOOR = "kvtwisted/sessions/door.py"
_SESSION = "kvtwisted/sessions/session.py"
_THREADS = "kvtwisted/sessions/threads.py"

FAULTS = (
    Fault(
        "batch-rights",
        "An MSet is refused when any of its keys is not allowed, not the first one alone.",
        f"{_COMMANDS}/mset.py",
        "all(key.startswith(prefixes) for key in self.pairs)",
        "all(key.startswith(prefixes) for key in [*self.pairs][:1])",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "hot-get-rights",
        "A Get that memory could answer needs the right too, where there is no rate.",
        _SESSION,
        """        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        return self._door.get_now(key)
""",
        "        return self._door.get_now(key)\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "scan-rights",
        "Who may read under a prefix may not scan it for that.",
        f"{_COMMANDS}/scan.py",
        '    name = right = metric = "scan"\n',
        '    name = metric = "scan"\n    right = "get"\n',
        "tests/sessions/test_session.py",
    ),
    Fault(
        "mdelete-as-set",
        "Who may write every key may not delete for that.",
        f"{_COMMANDS}/mdelete.py",
        '    right = metric = "delete"\n',
        '    right, metric = "set", "delete"\n',
        "tests/sessions/test_session.py",
    ),
    Fault(
        "writes-unaudited",
        "Writes of a token that may do everything are told to the audit log too.",
        _SESSION,
        "        if command.writes and self._written is not None:\n",
        "        if command.writes and self._written is not None and prefixes != _EVERYTHING:\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "scan-bytes-free",
        "What a scan has given is taken from the rate in bytes.",
        f"{_COMMANDS}/scan.py",
        "sum(map(len, result.keys)) + sum(map(len, result.values))",
        "0",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "batch-is-one",
        "An MGet of many keys takes as many operations from the rate.",
        _SESSION,
        "limiter.take(command.count or 1, command.size, self._seconds())",
        "limiter.take(1, command.size, self._seconds())",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "refused-body-free",
        "A request that is refused for its content has cost its bytes.",
        _SESSION,
        "        self.give_back(-size, 0)\n",
        "",
        "tests/sessions/test_session.py tests/http/test_known_first.py",
    ),
    Fault(
        "charged-twice",
        "Of a good request the bytes that were charged before it was read are given back.",
        _SESSION,
        "self._limiter.spend(-operations, -size, self._seconds())",
        "self._limiter.spend(-operations, max(0, -size), self._seconds())",
        "tests/sessions/test_session.py tests/http/test_known_first.py",
    ),
    Fault(
        "share-by-session",
        "All sessions of one principal have one share of what may be under way.",
        "kvtwisted/sessions/gate.py",
        "self._admissions.setdefault(principal.name, self._admission_of(principal))",
        "self._admission_of(principal)",
        "tests/sessions/test_sessions.py",
    ),
    Fault(
        "expired-session",
        "A session that is held ends when its token expires.",
        "kvtwisted/sessions/gate.py",
        "if anew or now >= key[0].valid_until]",
        "if anew]",
        "tests/sessions/test_sessions.py tests/sessions/test_gate.py",
    ),
    Fault(
        "expired-certificate",
        "A certificate shows nothing any more once it has ended.",
        "kvtwisted/sessions/gate.py",
        "visitor.certificate is not None and self._wall() < visitor.certificate_until:",
        "visitor.certificate is not None:",
        "tests/sessions/test_gate.py",
    ),
    Fault(
        "failed-login-unaudited",
        "A failed login has a line in the audit log.",
        "kvtwisted/sessions/gate.py",
        'self._refusals.record("login_failed", ANONYMOUS, address=visitor.address, reason=str(error))\n',
        "pass\n",
        "tests/sessions/test_gate.py",
    ),
    Fault(
        "expired-token",
        "A token that has expired lets nobody in.",
        "kvtwisted/sessions/authority.py",
        " and self.wall() < known.principal.valid_until:\n                return known.principal\n",
        ":\n                return known.principal\n",
        "tests/sessions/test_authority.py",
    ),
    Fault(
        "revoked-goes-on",
        "The principal of a token that was removed or changed is nobody any more.",
        "kvtwisted/sessions/authority.py",
        "                    known.principal.revoke(is_replaced=known.entry.id in new)\n",
        "                    pass\n",
        "tests/sessions/test_authority.py",
    ),
    Fault(
        "two-headers",
        "Two headers Authorization are no token.",
        "kvtwisted/sessions/tokens.py",
        "    if len(authorization) != 1 or",
        "    if not authorization or",
        "tests/sessions/test_tokens.py",
    ),
    Fault(
        "metrics-public",
        "Metrics need a right of their own.",
        "kvtwisted/http/routes.py",
        '"/metrics", grants.METRICS,',
        '"/metrics", policy.PUBLIC,',
        "tests/sessions/test_policy.py tests/http/test_access.py",
    ),
    Fault(
        "keyless-prefix",
        "A grant of what is about no key must not have a prefix.",
        "kvtwisted/sessions/grants.py",
        "        if keyless:\n",
        "        if not keyless:\n",
        "tests/sessions/test_grants.py",
    ),
    Fault(
        "both-budgets",
        "A request that the second of two rates refuses has taken nothing from the first.",
        "kvtwisted/sessions/buckets.py",
        "                own.spend(-operations, -size, now)\n",
        "                pass\n",
        "tests/sessions/test_buckets.py",
    ),
    Fault(
        "operations-unlimited",
        "Operations that are taken are missing from the bucket.",
        "kvtwisted/sessions/buckets.py",
        "            self._operations_full = full + cost\n",
        "            self._operations_full = full\n",
        "tests/sessions/test_buckets.py",
    ),
    Fault(
        "ipv6-by-address",
        "All addresses of an IPv6 network of 64 bits count as one.",
        "kvtwisted/sessions/buckets.py",
        "(int(address) >> 64 << 64, 64)",
        "(int(address) >> 32 << 32, 96)",
        "tests/sessions/test_buckets.py",
    ),
    Fault(
        "token-file-same-size",
        "A token file that is replaced by one of the same size is read anew.",
        "kvtwisted/sessions/token_file.py",
        "    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns\n",
        "    return status.st_dev, 0, status.st_size, 0, 0\n",
        "tests/sessions/test_token_file.py",
    ),
    Fault(
        "group-writes-secrets",
        "A token file that a group of others can write is refused.",
        "kvtwisted/core/secret_files.py",
        "else stat.S_IWOTH | stat.S_IWGRP\n",
        "else stat.S_IWOTH\n",
        "tests/core/test_secret_files.py tests/sessions/test_token_file.py",
    ),
    Fault(
        "share-leaves-whole",
        "What leaves a principal's share leaves the whole too.",
        "kvtwisted/sessions/admission.py",
        "            whole.in_flight -= requests\n",
        "",
        "tests/sessions/test_admission.py",
    ),
    Fault(
        "growing-past-whole",
        "A request that grows finds no more room than all together may have.",
        "kvtwisted/sessions/admission.py",
        "            whole._look_again(size)\n",
        "",
        "tests/sessions/test_admission.py",
    ),
    Fault(
        "owner-one-more",
        "An owner has as many slots as its share has, and none more.",
        "kvtwisted/sessions/shares.py",
        "            if has >= limit_of_owner:\n",
        "            if has > limit_of_owner:\n",
        "tests/sessions/test_shares.py",
    ),
    Fault(
        "administrators-unbounded",
        "Slots for administrators are as many as configured, also when administrators have them.",
        "kvtwisted/sessions/connections.py",
        "len(self._trials) + len(self._passed) < self._administrators",
        "len(self._trials) < self._administrators",
        "tests/sessions/test_connections.py",
    ),
    Fault(
        "working-makes-way",
        "A connection with something under way never makes way for another.",
        "kvtwisted/sessions/connections.py",
        "if idle is None or idle < UNKNOWN_IDLE_SECONDS:",
        "if idle is not None and idle < UNKNOWN_IDLE_SECONDS:",
        "tests/sessions/test_connections.py",
    ),
    Fault(
        "empty-batch-rights",
        "A batch without keys takes the right as well.",
        _SESSION,
        '        if not prefixes:\n            self.require(command.right, "")\n',
        "",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "refused-for-room",
        "A write that is refused for want of room has taken nothing from the rate, and is not audited.",
        _SESSION,
        "            self.give_back(command.size, command.count or 1)\n            raise\n",
        "            raise\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "refused-keys-free",
        "A command that is refused for its keys has cost what it would have.",
        _SESSION,
        "            raise self._refusal(command.right)\n",
        """            if limiter is not None:
                limiter.spend(-command.count, -command.size, self._seconds())
            raise self._refusal(command.right)
""",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "refused-write-audited",
        "A write that is refused for its keys is not told to the audit log as a write.",
        _SESSION,
        "        prefixes = self._prefixes[command.right]\n",
        """        prefixes = self._prefixes[command.right]
        if command.writes and self._written is not None and prefixes != _EVERYTHING:
            self._written(self.principal, command.right, command.keys)
""",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "refusals-unaudited",
        "A command that is refused for want of a right is told to who writes it down.",
        _SESSION,
        '        self._refused(self.name, "", operation, error)\n        return error\n',
        "        return error\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "over-rate-uncounted",
        "A command that is over the rate is told to who counts.",
        _SESSION,
        """                buckets.admit(wait, self._whose)
            except KvError as error:
                self._refused(self.name, "", "rate", error)
""",
        "                buckets.admit(wait, self._whose)\n            except KvError:\n",
        "tests/sessions/test_sessions.py",
    ),
    Fault(
        "anonymous-actor",
        "Who changes the configuration is who asked for it.",
        _SESSION,
        "            command.actor = self._actor\n",
        "            pass\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "hot-gets-unlimited",
        "Gets that memory answers are taken from the rate, also of who may read everything.",
        _SESSION,
        "        if limiter is None and self._get_prefixes:\n",
        "        if self._get_prefixes:\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "cold-get-pays-twice",
        "A Get that memory cannot answer is taken from the rate once.",
        _SESSION,
        "        if not known:\n            limiter.spend(-1, -len(key), now)\n",
        "        if not known:\n                pass\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "quota-unchecked",
        "A write that is over the quota is refused.",
        "kvtwisted/sessions/weighing.py",
        "        self.usage.check(grown)\n",
        "",
        "tests/sessions/test_quotas.py",
    ),
    Fault(
        "quota-counts-failures",
        "A write that failed does not count for the quota.",
        "kvtwisted/sessions/quotas.py",
        "            if failed:\n                self._change(grown, -1)\n",
        "",
        "tests/sessions/test_quotas.py",
    ),
    Fault(
        "quota-look-overtaken",
        "What was looked up for a quota does not hold when the key was written meanwhile.",
        "kvtwisted/sessions/weighing.py",
        "told(sizes if isinstance(sizes, BaseException) else now)",
        "told(sizes)",
        "tests/sessions/test_quotas.py",
    ),
    Fault(
        "recount-forgets-meanwhile",
        "What is written behind the place that a recount has come to counts.",
        "kvtwisted/sessions/quotas.py",
        "                if part.key < self._reached:\n",
        "                if part.key > self._reached:\n",
        "tests/background/test_quotas_task.py",
    ),
    Fault(
        "sessions-without-end",
        "Of more sessions than are kept the oldest are withdrawn.",
        "kvtwisted/sessions/gate.py",
        "        keys += open_[: max(0, len(open_) - MAX_SESSIONS)]\n",
        "",
        "tests/sessions/test_sessions.py tests/sessions/test_gate.py",
    ),
    Fault(
        "withdrawn-for-good",
        "Whose session is withdrawn though the token is good is told to come again.",
        "kvtwisted/sessions/gate.py",
        "found.is_replaced = key[0].is_replaced or now < key[0].valid_until",
        "found.is_replaced = False",
        "tests/sessions/test_sessions.py",
    ),
    Fault(
        "overdue-uncounted",
        "Commands that are given up since their time ran out are counted.",
        _DOOR,
        "            self.overdue.advance()\n",
        "            pass\n",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "refused-stays-admitted",
        "A command that is refused for what it asks has not entered the admission.",
        _DOOR,
        "            command.check(self.limits)\n        except",
        """            admission.enter()
            command.check(self.limits)
            admission.leave()
        except""",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "leaves-after-done",
        "Who is told that a command is done finds its room free.",
        _DOOR,
        """        for admission, sizes in left.items():
            admission.leave(len(sizes), sum(sizes))
        for command in commands:
            command.done(command)
""",
        """        for command in commands:
            command.done(command)
        for admission, sizes in left.items():
            admission.leave(len(sizes), sum(sizes))
""",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "settled-untold",
        "Whoever flushes is told after all of a group have their results, not before.",
        _DOOR,
        """        for command in commands:
            command.done(command)
        self.tell_settled()
""",
        """        self.tell_settled()
        for command in commands:
            command.done(command)
""",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "sample-counts-one",
        "A hot Get that is timed stands for as many as are not.",
        _DOOR,
        "monotonic() - started, False, HOT_SAMPLE)",
        "monotonic() - started, False, 1)",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "hot-get-unused",
        "A Get from the hot cache keeps its entry there.",
        _DOOR,
        "                entry.used = True\n",
        "",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "hot-gets-uncounted",
        "Each Get that is answered by an entry of memory is counted.",
        _DOOR,
        "                if not self._count_hot() & _NOT_SAMPLED:\n",
        "                if not self._hot_gets.value & _NOT_SAMPLED:\n",
        "tests/sessions/test_door.py",
    ),
    Fault(
        "no-deadline-overflows",
        "A thread waits for a command without a deadline.",
        _THREADS,
        "min(command.deadline - time.monotonic() + LAST_RESORT, threading.TIMEOUT_MAX)",
        "command.deadline - time.monotonic() + LAST_RESORT",
        "tests/sessions/test_threads.py",
    ),
    Fault(
        "waits-for-ever",
        "A thread does not wait for what is stuck past its command's deadline.",
        _THREADS,
        "min(command.deadline - time.monotonic() + LAST_RESORT, threading.TIMEOUT_MAX)",
        "threading.TIMEOUT_MAX",
        "tests/sessions/test_threads.py",
    ),
    Fault(
        "no-last-resort",
        "What carries a command out says itself that its time is over, before the thread gives up.",
        _THREADS,
        "command.deadline - time.monotonic() + LAST_RESORT,",
        "command.deadline - time.monotonic(),",
        "tests/sessions/test_threads.py",
    ),
    Fault(
        "refusal-unheard",
        "A thread whose command is refused at the session is told at once.",
        _THREADS,
        "                one.command.error = without_frames(error)\n                one.done.set()\n",
        "                one.command.error = without_frames(error)\n",
        "tests/sessions/test_threads.py",
    ),
)
