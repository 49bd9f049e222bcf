"""Kafka as a log. Only this package knows aiokafka, and works round what it does under faults.

The table of it, and the test of each row, are in docs/adr/0013.
"""
