"""Tests of the whole server: a real twistd process, asked over its sockets."""
