"""Servers as children: how they are launched, supervised, ended, and kept to one data folder."""
