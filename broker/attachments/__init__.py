"""Attachments: images and documents that messages name, sealed files beside the database."""
