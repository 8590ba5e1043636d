"""Domain definitions: YAML files that name a domain's texts, question sets and sample prompts."""
