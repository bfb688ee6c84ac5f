"""Measurements: conversion, preparation, inference, start-up."""
