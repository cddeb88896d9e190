/**
 * Adds the clusters that palette-sync publishes to the catalog of Backstage.
 *
 * @packageDocumentation
 */
export { catalogModulePaletteSync as default } from './module';
