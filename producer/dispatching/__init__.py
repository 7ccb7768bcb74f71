"""The dispatcher and what it does in a tick: releases, takes back, fires schedules, calls webhooks."""
