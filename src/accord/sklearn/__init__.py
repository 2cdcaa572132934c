"""Estimators of scikit-learn: embeddings of rows, search across two tables, and detection of rows that are not in accord."""

from accord.sklearn.detector import EnergyDetector as EnergyDetector
from accord.sklearn.embedder import JointEmbedder as JointEmbedder
from accord.sklearn.retriever import EnergyRetriever as EnergyRetriever

__all__ = ["EnergyDetector", "EnergyRetriever", "JointEmbedder"]
